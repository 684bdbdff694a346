/**
 * Messages of the KBS attestation handshake (Request, Challenge, Attestation) and our extension of them for TPMs.
 * `attestation-messages.md` specifies every member. This module turns text into bounded values and back; it decides
 * nothing about evidence.
 *
 * Versions 0.2.0, 0.3.0 and 0.4.0 of the protocol are read. 0.1.x is refused: its answers are encrypted with RSA1_5.
 */
import { canonicalJsonBytes, type JsonObject, type JsonValue } from './canonical-json.ts'
import type { CryptoProvider } from './crypto-provider.ts'
import { MalformedError } from './errors.ts'
import { JsonFields } from './json-fields.ts'
import { parseTeePublicKey, type TeePublicKey, teePublicKeyJson } from './tee-public-key.ts'
import {
  parseTpmChallenge,
  parseTpmRequest,
  type TpmChallenge,
  type TpmRequest,
  tpmChallengeJson,
  tpmRequestJson,
} from './tpm-messages.ts'

export type { TeePublicKey } from './tee-public-key.ts'
export type { AdmittedImage, TpmChallenge, TpmEvidence, TpmRequest } from './tpm-messages.ts'

export const KBS_VERSIONS: readonly ['0.2.0', '0.3.0', '0.4.0'] = ['0.2.0', '0.3.0', '0.4.0']
export type KbsVersion = (typeof KBS_VERSIONS)[number]
/** What our client speaks; the TPM extension exists in this version only. */
export const CURRENT_KBS_VERSION: KbsVersion = '0.4.0'

/** Largest body of any message, in UTF-16 units of its text. */
export const MAX_KBS_BODY: number = 2 * 1024 * 1024
const MAX_INITDATA_CHARS = 1024 * 1024
const MAX_NONCE_CHARS = 1024

/** POST /kbs/v0/auth */
export interface KbsRequest {
  readonly version: KbsVersion
  readonly tee: string
  /** Lower-case names; empty when the client sent none. */
  readonly supportedHashAlgorithms: readonly string[]
  readonly tpm?: TpmRequest
}

/** Answer to /auth */
export interface KbsChallenge {
  /** As spelt on the wire: it is the text that is hashed. Ours is base64 of 32 random bytes. */
  readonly nonce: string
  readonly tpm?: TpmChallenge
}

/** POST /kbs/v0/attest */
export interface KbsAttestation {
  /** Initdata TOML, verbatim. */
  readonly initdataToml?: string
  /** Empty in version 0.2.0, whose Attestation does not repeat it. */
  readonly nonce: string
  readonly teePublicKey: TeePublicKey
  readonly primaryEvidence: JsonValue
  /** JSON text of evidence of further devices, "" when there is none. Part of the report data. */
  readonly additionalEvidence: string
}

/** Throws `MalformedError` ERR_KBS_MESSAGE, ERR_KBS_VERSION or ERR_BASE64. */
export function parseKbsRequest(text: string): KbsRequest {
  const fields = parse(text, 'request')
  const version = parseKbsVersion(fields.string('version', 32))
  const tee = fields.string('tee', 32)
  if (!/^[a-z0-9-]+$/.test(tee)) throw fields.error('tee', 'lower-case letters, digits and hyphens are needed')
  const params = fields.optionalObject('extra-params')
  const tpm = params?.optionalObject('tpm')
  return {
    version,
    tee,
    supportedHashAlgorithms: params?.has('supported-hash-algorithms')
      ? params.strings('supported-hash-algorithms', { maxItems: 16, maxChars: 32 }).map((name) => name.toLowerCase())
      : [],
    ...(tpm === undefined ? {} : { tpm: parseTpmRequest(tpm) }),
  }
}

export function encodeKbsRequest(request: KbsRequest): string {
  return JSON.stringify({
    version: request.version,
    tee: request.tee,
    'extra-params': {
      'supported-hash-algorithms': request.supportedHashAlgorithms,
      ...(request.tpm === undefined ? {} : { tpm: tpmRequestJson(request.tpm) }),
    },
  })
}

/** Throws `MalformedError` ERR_KBS_MESSAGE or ERR_BASE64. */
export function parseKbsChallenge(text: string): KbsChallenge {
  const fields = parse(text, 'challenge')
  const nonce = fields.string('nonce', MAX_NONCE_CHARS)
  if (nonce === '') throw fields.error('nonce', 'empty')
  const tpm = fields.optionalObject('extra-params')?.optionalObject('tpm')
  return { nonce, ...(tpm === undefined ? {} : { tpm: parseTpmChallenge(tpm) }) }
}

export function encodeKbsChallenge(challenge: KbsChallenge): string {
  return JSON.stringify({
    nonce: challenge.nonce,
    'extra-params': challenge.tpm === undefined ? '' : { tpm: tpmChallengeJson(challenge.tpm) },
  })
}

/**
 * @param version what the session's Request said; the shape depends on it.
 * Throws `MalformedError` ERR_KBS_MESSAGE or ERR_BASE64.
 */
export function parseKbsAttestation(text: string, version: KbsVersion): KbsAttestation {
  const fields = parse(text, 'attestation')
  if (version === '0.2.0') {
    return {
      nonce: '',
      teePublicKey: parseTeePublicKey(fields.object('tee-pubkey')),
      primaryEvidence: fields.json('tee-evidence'),
      additionalEvidence: '',
    }
  }
  const runtime = fields.object('runtime-data')
  const shared = {
    nonce: runtime.string('nonce', MAX_NONCE_CHARS),
    teePublicKey: parseTeePublicKey(runtime.object('tee-pubkey')),
    ...parseInitdataMember(fields),
  }
  if (version === '0.3.0') {
    return { ...shared, primaryEvidence: fields.json('tee-evidence'), additionalEvidence: '' }
  }
  const evidence = fields.object('tee-evidence')
  return {
    ...shared,
    primaryEvidence: evidence.json('primary_evidence'),
    additionalEvidence: evidence.has('additional_evidence') ? evidence.string('additional_evidence', MAX_KBS_BODY) : '',
  }
}

/** The 0.4.0 form. */
export function encodeKbsAttestation(attestation: KbsAttestation): string {
  return JSON.stringify({
    ...(attestation.initdataToml === undefined
      ? {}
      : { 'init-data': { format: 'toml', body: attestation.initdataToml } }),
    'runtime-data': { nonce: attestation.nonce, 'tee-pubkey': teePublicKeyJson(attestation.teePublicKey) },
    'tee-evidence': {
      primary_evidence: attestation.primaryEvidence,
      additional_evidence: attestation.additionalEvidence,
    },
  })
}

/** Throws `MalformedError` ERR_KBS_VERSION. */
export function parseKbsVersion(text: string): KbsVersion {
  const version = KBS_VERSIONS.find((known) => known === text)
  if (version === undefined) {
    throw new MalformedError('ERR_KBS_VERSION', `KBS protocol version ${JSON.stringify(text)} is not spoken`, {
      hint: `Use a client for version ${KBS_VERSIONS.join(', ')}. 0.1 is refused because it encrypts with RSA1_5.`,
    })
  }
  return version
}

export interface ReportDataInput {
  readonly version: KbsVersion
  readonly nonce: string
  readonly teePublicKey: TeePublicKey
  readonly additionalEvidence: string
}

/** What evidence is bound to, before hashing: nonce and key, and from 0.4.0 on the evidence of further devices. */
export function reportDataBytes(input: ReportDataInput): Uint8Array {
  const bound: JsonObject = { nonce: input.nonce, 'tee-pubkey': teePublicKeyJson(input.teePublicKey) }
  return canonicalJsonBytes(
    input.version === '0.4.0' ? { ...bound, 'additional-evidence': input.additionalEvidence } : bound,
  )
}

/** SHA-384 of `reportDataBytes`: the qualifying data of a TPM quote. 48 bytes. */
export function reportDataDigest(crypto: CryptoProvider, input: ReportDataInput): Uint8Array {
  const hash = crypto.createHash('sha384')
  hash.update(reportDataBytes(input))
  return hash.digest()
}

function parse(text: string, what: string): JsonFields {
  return JsonFields.parse(text, what, { code: 'ERR_KBS_MESSAGE', maxChars: MAX_KBS_BODY })
}

function parseInitdataMember(fields: JsonFields): { initdataToml?: string } {
  const initdata = fields.optionalObject('init-data')
  if (initdata === undefined) return {}
  initdata.oneOf('format', ['toml'])
  return { initdataToml: initdata.string('body', MAX_INITDATA_CHARS) }
}
