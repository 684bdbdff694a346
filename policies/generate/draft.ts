/**
 * A policy that is being written: plain values, and marks where the generator cannot know. A mark is written as the tag
 * `!choose` with its question, which no reader of policies accepts: a guess never gets into a guest unnoticed.
 */

/** What somebody has to decide before the policy can be used. */
export class OpenChoice {
  readonly question: string

  constructor(question: string) {
    this.question = question
  }
}

/** A value with a remark for whoever reads the policy. */
export class Remarked {
  readonly value: Draft
  readonly remark: string

  constructor(value: Draft, remark: string) {
    this.value = value
    this.remark = remark
  }
}

export type Draft = string | number | boolean | OpenChoice | Remarked | readonly Draft[] | DraftMap
export interface DraftMap {
  readonly [key: string]: Draft
}

/** What the pod asks for and no confidential guest gives. */
export interface Refusal {
  /** "containers.web.volumeMounts[/host]" */
  readonly path: string
  readonly reason: string
  readonly remedy: string
}

/** Members that are undefined, and lists and mappings without entries, are left out: absent means denied. */
export function compact(members: Readonly<Record<string, Draft | undefined>>): DraftMap {
  return Object.fromEntries(
    Object.entries(members).flatMap(([key, value]) => (value === undefined || isEmpty(value) ? [] : [[key, value]])),
  )
}

function isEmpty(value: Draft): boolean {
  if (value instanceof OpenChoice || value instanceof Remarked) return false
  return typeof value === 'object' && Object.keys(value).length === 0
}
