/**
 * Reference values of SEV-SNP guests, as `caisson measure snp --json` prints them: one launch digest for each number of
 * vCPUs that the guest may have. A report carries nothing but that digest, so a document also keeps what a further vCPU
 * adds to it: then a guest with a number that nobody registered can be told from one with other firmware.
 */
import { createHash } from 'node:crypto'
import { fromHex, toHex } from '#protocol/encoding'
import { JsonFields } from '#protocol/json-fields'
import { DIGEST_BYTES, LaunchContext } from './launch-context.ts'

export interface SnpVariant {
  readonly vcpus: number
  /** Launch digest, hex. */
  readonly measurement: string
}

export interface SnpReferenceValues {
  readonly platform: 'snp'
  readonly id: string
  /** By rising number of vCPUs. */
  readonly variants: readonly SnpVariant[]
  /** SHA-384 of the save area that each vCPU after the first adds, hex. */
  readonly furtherVcpu: string | undefined
  readonly cmdline: string | undefined
}

const CODE = 'ERR_REFERENCE_VALUES'
const MAX_CHARS = 1024 * 1024
const MAX_VCPUS = 4096
/** Explanations look no further than guests reach. */
const MAX_EXPLAINED_VCPUS = 512
const ID = /^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}$/
const DIGEST = /^[0-9a-f]{96}$/
const MEMBERS = [
  'version',
  'platform',
  'id',
  'vcpus',
  'measurement',
  'measurements',
  'ovmf_hash',
  'further_vcpu',
  'cmdline',
]

/** Strict, as `parseReferenceValues`. Throws `MalformedError` ERR_REFERENCE_VALUES. */
export function parseSnpReferenceValues(text: string): SnpReferenceValues {
  const fields = JsonFields.parse(text, 'reference values', { code: CODE, maxChars: MAX_CHARS })
  fields.only(MEMBERS)
  fields.integer('version', 1, 1)
  fields.oneOf('platform', ['snp'])
  const id = fields.string('id', 128)
  if (!ID.test(id)) throw fields.error('id', 'letters, digits, "_", "-" and "." (not at the start) are needed')
  if (fields.has('measurement') === fields.has('measurements')) {
    throw fields.error('measurements', 'either one measurement or a list of them is needed')
  }
  if (fields.has('ovmf_hash')) digest(fields, 'ovmf_hash') // an input of `measure`, not compared
  const list = fields.has('measurements') ? fields.objects('measurements', MAX_VCPUS) : [fields]
  const variants = list.map(readVariant).toSorted((a, b) => a.vcpus - b.vcpus)
  if (variants.length === 0) throw fields.error('measurements', 'empty')
  const twice = variants.find(({ vcpus }, index) => variants[index + 1]?.vcpus === vcpus)
  if (twice !== undefined) throw fields.error('measurements', `${twice.vcpus} vCPUs are listed twice`)
  return {
    platform: 'snp',
    id,
    variants,
    furtherVcpu: fields.has('further_vcpu') ? digest(fields, 'further_vcpu') : undefined,
    cmdline: fields.has('cmdline') ? fields.string('cmdline', 4096) : undefined,
  }
}

/** A name for measurements that were given none: the same ones are the same document. */
export function defaultSnpId(variants: readonly SnpVariant[]): string {
  const hash = createHash('sha256')
  for (const { vcpus, measurement } of variants) hash.update(`${vcpus} ${measurement}\n`)
  return `snp-${hash.digest('hex').slice(0, 16)}`
}

/** How many vCPUs make this launch digest out of a document's, when no variant has it. */
export function vcpusBeyond(reference: SnpReferenceValues, measurement: string): number | undefined {
  const last = reference.variants.at(-1)
  if (reference.furtherVcpu === undefined || last === undefined) return undefined
  const save = fromHex(reference.furtherVcpu, 'further_vcpu')
  // Those between two variants as well: begin at the first, whose digest all others extend.
  const [first = last] = reference.variants
  const context = new LaunchContext(fromHex(first.measurement, 'measurement'))
  for (let vcpus = first.vcpus + 1; vcpus <= MAX_EXPLAINED_VCPUS; vcpus++) {
    context.addSaveAreaDigest(save)
    if (toHex(context.digest) === measurement) return vcpus
  }
  return undefined
}

function readVariant(fields: JsonFields): SnpVariant {
  return { vcpus: fields.integer('vcpus', 1, MAX_VCPUS), measurement: digest(fields, 'measurement') }
}

function digest(fields: JsonFields, name: string): string {
  const text = fields.string(name, 2 * DIGEST_BYTES)
  if (!DIGEST.test(text)) throw fields.error(name, 'a SHA-384 in lower-case hexadecimal is needed')
  return text
}
