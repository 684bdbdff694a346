/**
 * Every error this project throws on purpose.
 *
 * `code` is API: callers switch on it, so a code is never reused or renamed. `message` says what happened, `hint` says
 * what the reader can do about it, and `cause` keeps the original error for logs. Nothing of it but the code crosses
 * from the guest to the host; `docs/errors.md` lists all codes.
 */
export class CaissonError<Code extends string = string> extends Error {
  readonly code: Code
  readonly hint: string | undefined

  constructor(code: Code, message: string, options: { hint?: string | undefined; cause?: unknown } = {}) {
    super(message, 'cause' in options ? { cause: options.cause } : undefined)
    this.name = new.target.name
    this.code = code
    this.hint = options.hint
  }
}

/** Bytes or text that do not have the form they must have. Never a verdict about genuineness or policy. */
export class MalformedError extends CaissonError {}

/** The input was well-formed, but it is not genuine: signature, chain, digest or freshness does not hold. */
export class UnverifiedError extends CaissonError {}

/** The input was genuine, and a policy says no. `field`, `allowed` and `asked` name the rule for the policy's owner. */
export class DeniedError extends CaissonError {
  readonly field: string
  readonly allowed: string
  readonly asked: string

  constructor(
    code: string,
    message: string,
    denial: { field: string; allowed: string; asked: string; hint?: string | undefined; cause?: unknown },
  ) {
    super(code, message, denial)
    this.field = denial.field
    this.allowed = denial.allowed
    this.asked = denial.asked
  }
}

/** A part this one depends on is absent, unreachable or broken (exit code 3 of the command line). */
export class UnavailableError extends CaissonError {}

/** The user asked for something the command line or the API does not offer (exit code 2). */
export class UsageError extends CaissonError {}

/** Text of an unknown thrown value, for `message` and logs. */
export function errorText(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
