/**
 * The guest's half of one attestation with a TPM: EK and a fresh AK, then the answer to a challenge. The verifier's half
 * is `../verify`; both follow `protocol/attestation-messages.md`.
 */
import type { CryptoProvider } from '#protocol/crypto-provider'
import { equalBytes } from '#protocol/encoding'
import { UnavailableError } from '#protocol/errors'
import {
  type AdmittedImage,
  PCR_COUNT,
  type TpmChallenge,
  type TpmEvidence,
  type TpmRequest,
} from '#protocol/tpm-messages'
import { credentialProof } from '../credential-proof.ts'
import { TPM_ALG } from '../parse/algorithms.ts'
import { parseQuoteAttest } from '../parse/attest.ts'
import { type EccPublicArea, OBJECT_ATTRIBUTE } from '../parse/public-area.ts'
import {
  activateCredential,
  createPrimary,
  flushContext,
  policyOr,
  policySecret,
  quote,
  startPolicySession,
} from './commands.ts'
import type { TpmDevice } from './device.ts'
import { type LoadedEk, loadEndorsementKey } from './endorsement-key.ts'
import { readPcrs } from './pcrs.ts'

const MAX_QUOTES = 4

export interface TpmAttestationOptions {
  readonly device: TpmDevice
  readonly crypto: CryptoProvider
}

export interface ChallengeAnswer {
  readonly challenge: TpmChallenge
  /** 48 bytes: `reportDataDigest`. */
  readonly reportData: Uint8Array
  /** Firmware event log as read from securityfs. */
  readonly eventLog: Uint8Array
  readonly images: readonly AdmittedImage[]
}

/**
 * Makes the keys. The AK is new each time: random bytes in its template give a key nobody has seen.
 * The result holds two of the TPM's three object slots until it is disposed.
 *
 * Throws what `loadEndorsementKey` and `runCommand` throw.
 */
export async function prepareTpmAttestation(options: TpmAttestationOptions): Promise<TpmAttestation> {
  const ek = await loadEndorsementKey(options.device)
  try {
    const ak = await createPrimary(options.device, attestationKeyTemplate(options.crypto.randomBytes(32)))
    return new TpmAttestation(options, { ek, ak })
  } catch (error) {
    await flushContext(options.device, ek.handle)
    throw error
  }
}

interface LoadedKeys {
  readonly ek: LoadedEk
  readonly ak: { readonly handle: number; readonly publicArea: Uint8Array }
}

export class TpmAttestation implements AsyncDisposable {
  readonly #device: TpmDevice
  readonly #crypto: CryptoProvider
  readonly #keys: LoadedKeys
  #disposed = false

  constructor({ device, crypto }: TpmAttestationOptions, keys: LoadedKeys) {
    this.#device = device
    this.#crypto = crypto
    this.#keys = keys
  }

  /** What the Request announces. */
  get request(): TpmRequest {
    return { ekCertificate: this.#keys.ek.certificate, akPublic: this.#keys.ak.publicArea }
  }

  /** Throws `TpmResponseError` (0x1df, integrity: the challenge was made for another AK or EK). */
  async answer(input: ChallengeAnswer): Promise<TpmEvidence> {
    const secret = await this.#activate(input.challenge)
    const proof = credentialProof(this.#crypto, secret, input.reportData)
    secret.fill(0)
    const { message, signature, pcrs } = await this.#quote(input)
    return {
      akPublic: this.#keys.ak.publicArea,
      quote: { message, signature, pcrs: Array.from({ length: PCR_COUNT }, (_, pcr) => pcrs.get(pcr)) },
      eventLog: input.eventLog,
      credentialSecret: proof,
      images: input.images,
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#disposed) return
    this.#disposed = true
    try {
      await flushContext(this.#device, this.#keys.ak.handle)
    } finally {
      await flushContext(this.#device, this.#keys.ek.handle)
    }
  }

  async #activate(challenge: TpmChallenge): Promise<Uint8Array> {
    const { ek, ak } = this.#keys
    const session = await startPolicySession(this.#device, ek.template.nameAlgorithm, this.#crypto.randomBytes(16))
    try {
      await policySecret(this.#device, session)
      if (ek.template.policyOr.length > 0) await policyOr(this.#device, session, ek.template.policyOr)
      return await activateCredential(this.#device, {
        ak: ak.handle,
        ek: ek.handle,
        policySession: session,
        credentialBlob: challenge.credentialBlob,
        encryptedSecret: challenge.encryptedSecret,
      })
    } finally {
      await flushContext(this.#device, session)
    }
  }

  /** Quotes and reads until both are of the same moment. */
  async #quote(input: ChallengeAnswer): Promise<{
    message: Uint8Array
    signature: Uint8Array
    pcrs: ReadonlyMap<number, Uint8Array>
  }> {
    const selection = input.challenge.pcrSelection
    for (let attempt = 0; attempt < MAX_QUOTES; attempt++) {
      const signed = await quote(this.#device, {
        ak: this.#keys.ak.handle,
        qualifyingData: input.reportData,
        selection,
      })
      const pcrs = await readPcrs(this.#device, selection)
      const hash = this.#crypto.createHash('sha256')
      for (const value of pcrs.values()) hash.update(value)
      if (equalBytes(hash.digest(), parseQuoteAttest(signed.message).pcrDigest)) return { ...signed, pcrs }
    }
    throw new UnavailableError('ERR_TPM_PCRS_MOVING', 'PCRs changed between each quote and the reading of its values')
  }
}

/** Restricted ECDSA P-256 signing key with SHA-256, outside the dictionary-attack protection since its password is empty. */
export function attestationKeyTemplate(unique: Uint8Array): EccPublicArea {
  return {
    type: 'ecc',
    nameAlgorithm: 'sha256',
    attributes:
      OBJECT_ATTRIBUTE.fixedTPM |
      OBJECT_ATTRIBUTE.fixedParent |
      OBJECT_ATTRIBUTE.sensitiveDataOrigin |
      OBJECT_ATTRIBUTE.userWithAuth |
      OBJECT_ATTRIBUTE.noDA |
      OBJECT_ATTRIBUTE.restricted |
      OBJECT_ATTRIBUTE.sign,
    authPolicy: new Uint8Array(),
    symmetric: null,
    scheme: { algorithm: TPM_ALG.ECDSA, hash: 'sha256' },
    curve: 'P-256',
    kdf: null,
    x: unique,
    y: new Uint8Array(),
  }
}
