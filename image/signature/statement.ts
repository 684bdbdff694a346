/** in-toto statements (v0.1 and v1): what was signed about which artifacts, and the parts of SLSA provenance judged here. */
import { MalformedError } from '#protocol/errors'
import { asArray, asObject, asString, optionalStringMap } from '../json/fields.ts'
import { type JsonObject, type JsonValue, parseStrictJson } from '../json/strict-json.ts'

export const IN_TOTO_PAYLOAD = 'application/vnd.in-toto+json'
const TYPES: ReadonlySet<string> = new Set(['https://in-toto.io/Statement/v0.1', 'https://in-toto.io/Statement/v1'])
const MAX_SUBJECTS = 1024

export interface Statement {
  /** Hexadecimal digests by algorithm, of each subject. */
  readonly subjects: readonly ReadonlyMap<string, string>[]
  readonly predicateType: string
  readonly predicate: JsonValue
}

/** Throws `MalformedError` ERR_IMAGE_SIGNATURE_FORMAT, ERR_JSON or ERR_IMAGE_DOCUMENT. */
export function parseStatement(bytes: Uint8Array, what: string): Statement {
  const statement = asObject(parseStrictJson(bytes, what), what)
  if (!TYPES.has(asString(statement._type, `${what}: _type`))) {
    throw new MalformedError('ERR_IMAGE_SIGNATURE_FORMAT', `${what}: not an in-toto statement`)
  }
  const subjects = asArray(statement.subject, `${what}: subject`, MAX_SUBJECTS)
  return {
    subjects: subjects.map((subject, index) => {
      const here = `${what}: subject[${index}]`
      return optionalStringMap(asObject(subject, here).digest, `${here}.digest`)
    }),
    predicateType: asString(statement.predicateType, `${what}: predicateType`),
    predicate: statement.predicate ?? null,
  }
}

export interface Provenance {
  /** `runDetails.builder.id` of SLSA 1, `builder.id` of 0.x. */
  readonly builder: string | undefined
  /** Where the source came from: repositories and materials, as they stand there. */
  readonly sources: readonly string[]
}

/** Of SLSA 0.2 and 1: absent members are absent, and satisfy nothing. */
export function provenanceOf({ predicate }: Statement): Provenance {
  const root = record(predicate)
  const definition = record(root.buildDefinition)
  const workflow = record(record(definition.externalParameters).workflow)
  const materials = [...items(definition.resolvedDependencies), ...items(root.materials)]
  const builder = record(record(root.runDetails).builder).id ?? record(root.builder).id
  const configSource = record(record(root.invocation).configSource).uri
  const sources = [workflow.repository, configSource, ...materials.map((material) => record(material).uri)]
  return {
    builder: typeof builder === 'string' ? builder : undefined,
    sources: sources.filter((source) => typeof source === 'string'),
  }
}

/** Whether a source is `wanted`: "git+" before it and a revision behind it do not make it another. */
export function isSource(source: string, wanted: string): boolean {
  const bare = source.replace(/^git\+/, '')
  return [source, bare, bare.replace(/@[^/]*(?:\/.*)?$/, '')].includes(wanted)
}

function record(value: JsonValue | undefined): JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as JsonObject) : {}
}

function items(value: JsonValue | undefined): readonly JsonValue[] {
  return Array.isArray(value) ? value : []
}
