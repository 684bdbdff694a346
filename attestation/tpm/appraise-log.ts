/**
 * The verdict about an event log that came alone: it is read and replayed, but without a quote nobody vouches for it. So the
 * claims are what PCRs would have to be for the log to be true.
 */
import { nodeCrypto } from '#protocol/node/crypto'
import type { Appraisal, Finding } from '../evidence/verdict.ts'
import { appraiseBootLog } from './evaluate/boot-log.ts'
import { pcrClaims } from './evaluate/quote.ts'
import type { EventLog } from './parse/event-log.ts'
import { replayEventLog } from './verify/replay.ts'

export function appraiseEventLog(log: EventLog): Appraisal {
  const replayed = new Map(log.banks.map((bank) => [bank, replayEventLog(nodeCrypto, log, bank)]))
  const { claims, findings } = appraiseBootLog(log, replayed)
  return {
    tee: 'tpm',
    claims: { pcrs: pcrClaims(replayed), ...claims },
    trustworthiness: {
      'instance-identity': 0,
      configuration: 0,
      executables: 0,
      'file-system': 0,
      hardware: 0,
      'runtime-opaque': 0,
      'storage-opaque': 0,
      'sourced-data': 0,
    },
    findings: [unquoted(), ...findings.filter(({ code }) => code !== 'unchecked_event_log')],
  }
}

function unquoted(): Finding {
  return {
    severity: 'warning',
    code: 'no_quote',
    message: 'the event log came without a quote: nobody vouches for it',
    remedy: 'Send it with a quote of the TPM: { message, signature, public_key, pcrs, event_log }.',
  }
}
