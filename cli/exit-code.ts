/** Exit codes of every command: 0 yes, 1 no (a verdict), 2 wrong usage or malformed input, 3 a part is unavailable. */
import { AdministratorRefusal, type RefusalCause } from '#attestation/verifier/admin/refusal'
import { DeniedError, MalformedError, UnverifiedError, UsageError } from '#protocol/errors'

export const EXIT_YES = 0
export const EXIT_NO = 1
export const EXIT_MALFORMED = 2
export const EXIT_UNAVAILABLE = 3

/** `run` and `exec` return the container's code; our own failures are told apart as in other runtimes. */
export const EXIT_RUN_FAILED = 125
/** The container exists, but its command was refused or cannot be executed. */
export const EXIT_CANNOT_EXECUTE = 126
export const EXIT_NOT_FOUND = 127

/** A verifier that refuses a command says whether it was the command, the administrator, or the verifier itself. */
const BY_REFUSAL: Readonly<Record<RefusalCause, number>> = {
  input: EXIT_MALFORMED,
  rights: EXIT_NO,
  verifier: EXIT_UNAVAILABLE,
}

export function exitCodeOf(error: unknown): number {
  if (error instanceof AdministratorRefusal) return BY_REFUSAL[error.because]
  if (error instanceof UsageError || error instanceof MalformedError) return EXIT_MALFORMED
  if (error instanceof DeniedError || error instanceof UnverifiedError) return EXIT_NO
  return EXIT_UNAVAILABLE
}
