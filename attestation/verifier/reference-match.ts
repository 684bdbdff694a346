/**
 * Does hardware's evidence match a document of reference values as a whole? If none, what is different, in words: what the
 * evidence does not say, such as the number of vCPUs, is found by trying what the documents allow to compute.
 */
import { createHash } from 'node:crypto'
import { toHex } from '#protocol/encoding'
import type { ReferenceDocument } from '../measure/reference-document.ts'
import { type SnpReferenceValues, vcpusBeyond } from '../measure/snp/reference-values.ts'
import type { TdxReferenceValues, TdxVariant } from '../measure/tdx/reference-values.ts'
import { loadOptions } from '../measure/tpm/linux-boot.ts'
import { differingToken, recogniseCommandLine } from '../measure/tpm/recognise-command-line.ts'
import type { ClaimCheck } from '../store/attestation-log.ts'
import type { EventLog } from '../tpm/parse/event-log.ts'

/** What the evidence measured. */
export type Measured =
  | { readonly platform: 'snp'; readonly measurement: string }
  | {
      readonly platform: 'tdx'
      readonly mrtd: string
      /** RTMR0 to RTMR3, hex. */
      readonly rtmrs: readonly string[]
      /** Replayed to the registers before, or it is not used. */
      readonly eventLog: EventLog | undefined
    }

export interface ReferenceInput {
  readonly measured: Measured
  /** Those that count. */
  readonly current: readonly ReferenceDocument[]
  /** Candidates and retired ones: only to explain with. */
  readonly others: readonly ReferenceDocument[]
}

export type ReferenceResult =
  | { readonly matched: true; readonly id: string; readonly checks: readonly ClaimCheck[] }
  | {
      readonly matched: false
      readonly code: 'ERR_NO_REFERENCE_VALUES' | 'ERR_MEASUREMENT_MISMATCH'
      readonly reason: string
      readonly hint: string
      readonly checks: readonly ClaimCheck[]
    }

const REGISTERS = ['rtmr0', 'rtmr1', 'rtmr2'] as const
const LINUX_LOAD_OPTIONS_RTMR = 2

export function matchReferences(input: ReferenceInput): ReferenceResult {
  const { measured } = input
  return measured.platform === 'snp' ? matchSnp(measured.measurement, input) : matchTdx(measured, input)
}

function matchSnp(measurement: string, { current, others }: ReferenceInput): ReferenceResult {
  const documents = current.filter((each) => each.platform === 'snp')
  const match = documents.find(({ variants }) => variants.some((each) => each.measurement === measurement))
  if (match !== undefined) {
    const vcpus = match.variants.find((each) => each.measurement === measurement)?.vcpus ?? 0
    const claim = `measurement (${match.id}, ${vcpus} vCPUs)`
    return { matched: true, id: match.id, checks: [{ claim, expected: measurement, found: measurement, ok: true }] }
  }
  if (documents.length === 0) return none('snp')
  const { reason, remedy } = explainSnp(measurement, documents, others)
  const expected = documents.flatMap(({ variants }) => variants.map((each) => each.measurement)).join(', ')
  const check = { claim: 'measurement', expected, found: measurement, ok: false, remedy }
  return { matched: false, code: 'ERR_MEASUREMENT_MISMATCH', reason, hint: remedy, checks: [check] }
}

function explainSnp(
  measurement: string,
  documents: readonly SnpReferenceValues[],
  others: readonly ReferenceDocument[],
): { reason: string; remedy: string } {
  for (const document of documents) {
    const vcpus = vcpusBeyond(document, measurement)
    if (vcpus === undefined) continue
    const known = document.variants.map((each) => String(each.vcpus))
    return {
      reason: `${vcpus} vCPUs have no reference value; ${words(known)} ${known.length === 1 ? 'has' : 'have'} (${document.id})`,
      remedy: `Measure again with --vcpus up to ${vcpus} and register it, or start the guest with ${words(known, 'or')}.`,
    }
  }
  const other = others.find(
    (each) => each.platform === 'snp' && each.variants.some((variant) => variant.measurement === measurement),
  )
  if (other !== undefined) return notCounting(other.id)
  return {
    reason:
      'the launch digest is none of the registered ones: firmware, kernel, initrd, command line or vCPU type differ',
    remedy:
      'Measure what the guest is started with (`caisson measure snp`); register it if it is yours, refuse it otherwise.',
  }
}

function matchTdx(measured: Extract<Measured, { platform: 'tdx' }>, input: ReferenceInput): ReferenceResult {
  const documents = input.current.filter((each) => each.platform === 'tdx')
  const match = documents.find((document) => bestVariant(document, measured).differing.length === 0)
  if (match !== undefined) return { matched: true, id: match.id, checks: tdxChecks(match, measured) }
  const [closest] = documents.toSorted(
    (a, b) => bestVariant(a, measured).differing.length - bestVariant(b, measured).differing.length,
  )
  if (closest === undefined) return none('tdx')
  const other = input.others.find(
    (each) => each.platform === 'tdx' && bestVariant(each, measured).differing.length === 0,
  )
  const checks = tdxChecks(closest, measured)
  const failed = checks.filter(({ ok }) => !ok)
  const explained =
    other === undefined
      ? {
          reason: `compared with ${closest.id}: ${bestVariant(closest, measured)
            .differing.map((name) => explainRegister(name, closest, measured, input))
            .join('; ')}`,
          remedy: failed[0]?.remedy ?? MEASURE_TDX,
        }
      : notCounting(other.id)
  return { matched: false, code: 'ERR_MEASUREMENT_MISMATCH', reason: explained.reason, hint: explained.remedy, checks }
}

const MEASURE_TDX = 'Measure what the guest is started with (`caisson measure tdx`); register it if it is yours.'

type TdxRegister = 'mrtd' | (typeof REGISTERS)[number]

function bestVariant(
  document: TdxReferenceValues,
  measured: Extract<Measured, { platform: 'tdx' }>,
): { readonly variant: TdxVariant | undefined; readonly differing: readonly TdxRegister[] } {
  const firmware: readonly TdxRegister[] = document.mrtd === measured.mrtd ? [] : ['mrtd']
  const compared = document.variants.map((variant) => ({
    variant,
    differing: [
      ...firmware,
      ...REGISTERS.filter((name, index) => variant[name] !== undefined && variant[name] !== measured.rtmrs[index]),
    ],
  }))
  const [best] = compared.toSorted((a, b) => a.differing.length - b.differing.length)
  return best ?? { variant: undefined, differing: ['mrtd'] }
}

function tdxChecks(document: TdxReferenceValues, measured: Extract<Measured, { platform: 'tdx' }>): ClaimCheck[] {
  const { variant } = bestVariant(document, measured)
  const values: readonly (readonly [string, string | undefined, string])[] = [
    ['mrtd', document.mrtd, measured.mrtd],
    ...REGISTERS.map((name, index) => [name, variant?.[name], measured.rtmrs[index] ?? ''] as const),
  ]
  return values.flatMap(([name, expected, found]): ClaimCheck[] => {
    if (expected === undefined) return []
    const claim = `${name} (${document.id})`
    return [
      expected === found
        ? { claim, expected, found, ok: true }
        : { claim, expected, found, ok: false, remedy: MEASURE_TDX },
    ]
  })
}

function explainRegister(
  name: TdxRegister,
  document: TdxReferenceValues,
  measured: Extract<Measured, { platform: 'tdx' }>,
  { current, others }: ReferenceInput,
): string {
  if (name === 'mrtd') return 'the firmware differs (MRTD)'
  const rtmr = Number(name.slice(-1))
  const known = [...current, ...others].flatMap((each) => commandLineOf(each))
  const logged = measured.eventLog?.events.filter(({ pcr }) => pcr === rtmr + 1) ?? []
  const digests = logged.map(({ digests: each }) => toHex(each.sha384 ?? new Uint8Array()))
  const measuredDigests = new Set(digests)
  if (rtmr === LINUX_LOAD_OPTIONS_RTMR && document.cmdline !== undefined) {
    const predicted = document.cmdline
    const wanted = sha384(predicted)
    const booted = recogniseCommandLine({ predicted, known, isMeasured: (line) => measuredDigests.has(sha384(line)) })
    if (booted !== undefined && booted !== predicted) return differingToken(predicted, booted)
    if (digests.length > 0 && !digests.includes(wanted)) return 'the kernel command line differs'
  }
  const predicted = document.events.filter((event) => event.rtmr === rtmr)
  const differing = predicted.find(({ digest }, index) => digest !== undefined && digest !== digests[index])
  const subject = {
    0: 'the machine’s configuration',
    1: 'the kernel or how it was started',
    2: 'command line or initrd',
  }[rtmr]
  return digests.length > 0 && differing !== undefined
    ? `${name.toUpperCase()} differs at: ${differing.description}`
    : `${subject ?? 'a measurement'} differs (${name.toUpperCase()})`
}

function sha384(commandLine: string): string {
  return createHash('sha384').update(loadOptions(commandLine)).digest('hex')
}

function commandLineOf(document: ReferenceDocument): string[] {
  const line = document.platform === 'tpm' ? document.artefacts.cmdline : document.cmdline
  return line === undefined ? [] : [line]
}

function notCounting(id: string): { reason: string; remedy: string } {
  return {
    reason: `the guest is that of ${id}, which does not count now`,
    remedy: `Promote it (caisson verifier reference-value promote ${id}), or start a guest that counts.`,
  }
}

function none(platform: 'snp' | 'tdx'): ReferenceResult {
  return {
    matched: false,
    code: 'ERR_NO_REFERENCE_VALUES',
    reason: `no reference values of ${platform} guests are registered, so no boot is expected`,
    hint: `Predict them with "caisson measure ${platform} --json" and register them with "caisson verifier reference-value".`,
    checks: [],
  }
}

/** "1, 2 and 4" */
function words(items: readonly string[], last = 'and'): string {
  const [end = '', ...before] = items.toReversed()
  return before.length === 0 ? end : `${before.toReversed().join(', ')} ${last} ${end}`
}
