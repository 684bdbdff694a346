/** Exit codes of every command: 0 yes, 1 no (a verdict), 2 wrong usage or malformed input, 3 a part is unavailable. */
import { AdministratorRefusal, type RefusalCause } from '#attestation/verifier/admin/refusal'
import { GuestRefusalError } from '#host-shim/pod/guest-refusal'
import { DeniedError, MalformedError, UnverifiedError, UsageError } from '#protocol/errors'

export const EXIT_YES = 0
export const EXIT_NO = 1
export const EXIT_MALFORMED = 2
export const EXIT_UNAVAILABLE = 3

/** `run` and `exec` return the container's code. What fails on our side is told apart as in other runtimes. */
export const EXIT_RUN_FAILED = 125
/** Of `exec` alone: the guest is there, and refused the command or could not run it. */
export const EXIT_CANNOT_EXECUTE = 126

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

/** Of `exec`, when there is no code of the command. */
export function execExitCodeOf(error: unknown): number {
  return error instanceof GuestRefusalError ? EXIT_CANNOT_EXECUTE : EXIT_RUN_FAILED
}
