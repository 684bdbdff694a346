/**
 * Reference values: what a guest may have booted, as the tenant registers it with the verifier. Made by
 * `caisson measure`, one document per guest and initdata; a boot must match one document as a whole.
 */
import { canonicalJson, type JsonObject } from '#protocol/canonical-json'
import { JsonFields } from '#protocol/json-fields'
import type { PcrPrediction, PredictedEvent } from './tpm/predict-pcrs.ts'

const CODE = 'ERR_REFERENCE_VALUES'
const MAX_CHARS = 1024 * 1024
const MAX_EVENTS = 256
const SHA256 = /^[0-9a-f]{64}$/
const ID = /^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}$/

/** What the values were computed from: for people, and to explain mismatches. */
export interface ReferenceArtefacts {
  /** SHA-256 of the files, hex. */
  readonly firmware: string
  readonly kernel: string
  readonly initdata: string
  /** The text itself: it holds no secrets, and a mismatch can be shown token by token. */
  readonly cmdline: string
  readonly vcpus: number
}

export interface TpmReferenceValues {
  readonly version: 1
  readonly platform: 'tpm'
  readonly id: string
  /** Hex, by PCR number. Each must be equal; PCRs that are not listed are not compared. */
  readonly pcrs: { readonly sha256: Readonly<Record<number, string>> }
  readonly events: readonly PredictedEvent[]
  readonly artefacts: ReferenceArtefacts
}

/** PCRs without which a document would leave part of the boot unsaid. */
const NEEDED_PCRS: readonly number[] = [0, 2, 4, 7, 8, 9]

export function referenceValues(
  id: string,
  prediction: PcrPrediction,
  artefacts: ReferenceArtefacts,
): TpmReferenceValues {
  const { sha256, events } = prediction
  return { version: 1, platform: 'tpm', id, pcrs: { sha256 }, events, artefacts }
}

/** Canonical, so that the same artefacts give the same text. */
export function encodeReferenceValues(values: TpmReferenceValues): string {
  const document: JsonObject = {
    version: values.version,
    platform: values.platform,
    id: values.id,
    pcrs: { sha256: { ...values.pcrs.sha256 } },
    events: values.events.map((event) => ({ ...event })),
    artefacts: { ...values.artefacts },
  }
  return `${canonicalJson(document)}\n`
}

/** Strict: unknown members are refused, since they might be conditions that would not be kept. Throws ERR_REFERENCE_VALUES. */
export function parseReferenceValues(text: string): TpmReferenceValues {
  const fields = JsonFields.parse(text, 'reference values', { code: CODE, maxChars: MAX_CHARS })
  fields.only(['version', 'platform', 'id', 'pcrs', 'events', 'artefacts'])
  fields.integer('version', 1, 1)
  const id = fields.string('id', 128)
  if (!ID.test(id)) throw fields.error('id', 'letters, digits, "_", "-" and "." (not at the start) are needed')
  const pcrs = fields.object('pcrs')
  pcrs.only(['sha256'])
  const artefacts = fields.object('artefacts')
  artefacts.only(['firmware', 'kernel', 'initdata', 'cmdline', 'vcpus'])
  return {
    version: 1,
    platform: fields.oneOf('platform', ['tpm']),
    id,
    pcrs: { sha256: parsePcrs(pcrs.object('sha256')) },
    events: fields.objects('events', MAX_EVENTS).map(parseEvent),
    artefacts: {
      firmware: digest(artefacts, 'firmware'),
      kernel: digest(artefacts, 'kernel'),
      initdata: digest(artefacts, 'initdata'),
      cmdline: artefacts.string('cmdline', 4096),
      vcpus: artefacts.integer('vcpus', 1, 255),
    },
  }
}

function parsePcrs(fields: JsonFields): Record<number, string> {
  const pcrs: Record<number, string> = {}
  for (const name of fields.names()) {
    if (!/^(?:\d|1\d|2[0-3])$/.test(name)) throw fields.error(name.slice(0, 16), 'a PCR number from 0 to 23 is needed')
    pcrs[Number(name)] = digest(fields, name)
  }
  for (const pcr of NEEDED_PCRS) {
    if (pcrs[pcr] === undefined) throw fields.error(String(pcr), 'missing: part of the boot would not be compared')
  }
  return pcrs
}

function parseEvent(fields: JsonFields): PredictedEvent {
  fields.only(['pcr', 'type', 'description', 'digest'])
  return {
    pcr: fields.integer('pcr', 0, 23),
    type: fields.string('type', 64),
    description: fields.string('description', 8192),
    digest: digest(fields, 'digest'),
  }
}

function digest(fields: JsonFields, name: string): string {
  const text = fields.string(name, 64)
  if (!SHA256.test(text)) throw fields.error(name, 'a SHA-256 in lower-case hexadecimal is needed')
  return text
}
