/**
 * Why a guest refused something, in the words that are for its tenant alone: one form, whatever way they go. What a way adds
 * (an id's name, a time, the request) is the way's own: `reason-report.ts` through the verifier, `sealed-reason.ts` past the host.
 */
import type { JsonFields } from './json-fields.ts'

export interface RefusalReason {
  /** The id that the host was given: 16 hexadecimal digits. */
  readonly correlationId: string
  readonly code: string
  /** What was asked for: "CreateContainer web". */
  readonly subject: string
  readonly message: string
  readonly hint?: string | undefined
  /** The rule, when a policy said no. */
  readonly denial?: { readonly field: string; readonly allowed: string; readonly asked: string } | undefined
}

type Words = Omit<RefusalReason, 'correlationId'>

/** As members of a JSON object: what is absent is left out. @param each what becomes of a text */
export function reasonMembers({ code, subject, message, hint, denial }: Words, each: (text: string) => string): Words {
  return {
    code: each(code),
    subject: each(subject),
    message: each(message),
    ...(hint === undefined ? {} : { hint: each(hint) }),
    ...(denial === undefined
      ? {}
      : { denial: { field: each(denial.field), allowed: each(denial.allowed), asked: each(denial.asked) } }),
  }
}

/** @param maxChars of each text. Throws `MalformedError` with the code of `fields`. */
export function readReasonMembers(fields: JsonFields, maxChars: number): Words {
  const denial = fields.optionalObject('denial')
  const member = (from: JsonFields, name: string): string => from.string(name, maxChars)
  return {
    code: member(fields, 'code'),
    subject: member(fields, 'subject'),
    message: member(fields, 'message'),
    hint: fields.has('hint') ? member(fields, 'hint') : undefined,
    denial:
      denial === undefined
        ? undefined
        : { field: member(denial, 'field'), allowed: member(denial, 'allowed'), asked: member(denial, 'asked') },
  }
}
