import { MalformedError } from '#protocol/errors'

/**
 * Every way in which a log is not a log, truncation included: ERR_EVENT_LOG_HEADER, ERR_EVENT_LOG_LIMIT,
 * ERR_EVENT_LOG_RECORD, ERR_EVENT_LOG_BANK.
 */
export class EventLogError extends MalformedError {}
