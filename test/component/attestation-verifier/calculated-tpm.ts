/**
 * Guests whose TPM is a calculation: keys of our own sign what a TPM would. The verifier has the same work with them as with
 * any other, and they leave it the processor, which is what a benchmark of the verifier needs. The endorsement key is an
 * RSA key of 2048 bits, which TPMs of hardware have; a certificate authority of the benchmark vouches for it.
 */
import {
  createDecipheriv,
  createHash,
  createSecretKey,
  generateKeyPairSync,
  type KeyObject,
  constants as openssl,
  privateDecrypt,
  sign,
} from 'node:crypto'
import type { EvidenceSource } from '#attestation/client/evidence-source'
import { QUOTED_PCRS } from '#attestation/tpm/appraise'
import { credentialProof } from '#attestation/tpm/credential-proof'
import { TPM_ALG } from '#attestation/tpm/parse/algorithms'
import { sized, u16, u32 } from '#attestation/tpm/parse/marshal'
import {
  encodePublicArea,
  OBJECT_ATTRIBUTE,
  objectName,
  primaryQualifiedName,
} from '#attestation/tpm/parse/public-area'
import { kdfA } from '#attestation/tpm/verify/make-credential'
import { authorityExtensions, distinguishedName, issueCertificate } from '#attestation/x509/issue'
import { encodePem } from '#attestation/x509/pem'
import { derBitString, derBoolean, derObjectId, derOctetString, derSequence } from '#protocol/der-writer'
import { concatBytes, fromBase64Url } from '#protocol/encoding'
import { nodeCrypto } from '#protocol/node/crypto'
import { PCR_COUNT, tpmEvidenceJson } from '#protocol/tpm-messages'
import { BOOT_EVENTS, bootEventLog, EV_IPL, sha256 } from './software-tpm.ts'

const TPM_RH_ENDORSEMENT = 0x4000_000b
const SHA256_ID = 0x000b
const AK_ATTRIBUTES =
  OBJECT_ATTRIBUTE.fixedTPM |
  OBJECT_ATTRIBUTE.fixedParent |
  OBJECT_ATTRIBUTE.sensitiveDataOrigin |
  OBJECT_ATTRIBUTE.userWithAuth |
  OBJECT_ATTRIBUTE.restricted |
  OBJECT_ATTRIBUTE.sign
const DAY_MS = 86_400_000

export interface CalculatedTpmCa {
  readonly rootPem: string
  /** One TPM after the measured boot of `software-tpm.ts`. Its attestation key is new for each handshake. */
  guest(initdata: Uint8Array): EvidenceSource
}

export function createCalculatedTpmCa(): CalculatedTpmCa {
  const ca = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const caKey = spkiOf(ca.publicKey)
  const issuer = distinguishedName({ commonName: 'TPMs of a benchmark' })
  const now = Date.now()
  const dates = { notBefore: new Date(now - DAY_MS), notAfter: new Date(now + DAY_MS) }
  let serial = 0
  const issue = (subject: Uint8Array, publicKey: Uint8Array, extensions: readonly Uint8Array[]): Uint8Array => {
    serial++
    const fields = { serial: Uint8Array.of(1, serial), issuer, subject, ...dates, publicKey, extensions }
    return issueCertificate(fields, ca.privateKey)
  }
  const root = issue(issuer, caKey, authorityExtensions(caKey))
  return {
    rootPem: encodePem({ label: 'CERTIFICATE', bytes: root }),
    guest: (initdata) => {
      const ek = generateKeyPairSync('rsa', { modulusLength: 2048 })
      const subject = distinguishedName({ commonName: `TPM ${serial}` })
      return guestWith({
        initdata,
        ekKey: ek.privateKey,
        ekCertificate: issue(subject, spkiOf(ek.publicKey), EK_USAGE),
      })
    },
  }
}

/** Key encipherment, and tcg-kp-EKCertificate. */
const EK_USAGE: readonly Uint8Array[] = [
  derSequence(derObjectId('2.5.29.15'), derBoolean(true), derOctetString(derBitString(Uint8Array.of(0x20), 5))),
  derSequence(derObjectId('2.5.29.37'), derOctetString(derSequence(derObjectId('2.23.133.8.1')))),
]

function guestWith(tpm: { initdata: Uint8Array; ekKey: KeyObject; ekCertificate: Uint8Array }): EvidenceSource {
  const pcrs: Uint8Array[] = Array.from({ length: PCR_COUNT }, () => new Uint8Array(32))
  for (const { pcr, data } of BOOT_EVENTS) pcrs[pcr] = extended(sha256(data))
  pcrs[8] = extended(sha256(tpm.initdata))
  const eventLog = bootEventLog(BOOT_EVENTS, EV_IPL)
  return {
    prepare: async () => {
      const ak = attestationKey()
      return {
        request: { tee: 'tpm', tpm: { ekCertificate: tpm.ekCertificate, akPublic: ak.akPublic } },
        answer: async ({ challenge, reportData }) => {
          if (challenge.tpm === undefined) throw new TypeError('a challenge without the TPM extension')
          const secret = activate(tpm.ekKey, ak.name, challenge.tpm)
          const message = quoteOf(ak.name, reportData, pcrs)
          return tpmEvidenceJson({
            akPublic: ak.akPublic,
            quote: { message, signature: ak.sign(message), pcrs },
            eventLog,
            credentialSecret: credentialProof(nodeCrypto, secret, reportData),
            images: [],
          })
        },
        [Symbol.asyncDispose]: async () => {},
      }
    },
  }
}

interface CalculatedAk {
  readonly akPublic: Uint8Array
  readonly name: Uint8Array
  /** TPMT_SIGNATURE. */
  sign(message: Uint8Array): Uint8Array
}

function attestationKey(): CalculatedAk {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const { x = '', y = '' } = publicKey.export({ format: 'jwk' })
  const akPublic = encodePublicArea({
    type: 'ecc',
    nameAlgorithm: 'sha256',
    attributes: AK_ATTRIBUTES,
    authPolicy: new Uint8Array(),
    symmetric: null,
    scheme: { algorithm: TPM_ALG.ECDSA, hash: 'sha256' },
    curve: 'P-256',
    kdf: null,
    x: fromBase64Url(x, 'x'),
    y: fromBase64Url(y, 'y'),
  })
  return {
    akPublic,
    name: objectName(nodeCrypto, akPublic),
    sign: (message) => {
      const raw = new Uint8Array(sign('sha256', message, { key: privateKey, dsaEncoding: 'ieee-p1363' }))
      return concatBytes(u16(TPM_ALG.ECDSA), u16(SHA256_ID), sized(raw.subarray(0, 32)), sized(raw.subarray(32)))
    },
  }
}

/** TPM2_ActivateCredential (TPM 2.0 part 1, section 24). */
function activate(
  ekKey: KeyObject,
  akName: Uint8Array,
  { encryptedSecret, credentialBlob }: { encryptedSecret: Uint8Array; credentialBlob: Uint8Array },
): Uint8Array {
  const label = Buffer.from('IDENTITY\0')
  const padding = { padding: openssl.RSA_PKCS1_OAEP_PADDING, oaepHash: 'sha256', oaepLabel: label }
  const seed = privateDecrypt({ key: ekKey, ...padding }, encryptedSecret)
  const key = kdfA('sha256', seed, { label: 'STORAGE', contextU: akName, bits: 128 })
  const macBytes = 2 + 32
  const decipher = createDecipheriv('aes-128-cfb', createSecretKey(key), new Uint8Array(16))
  return concatBytes(decipher.update(credentialBlob.subarray(macBytes)), decipher.final()).slice(2)
}

/** TPMS_ATTEST of TPM2_Quote (part 2, section 10.12). */
function quoteOf(akName: Uint8Array, extraData: Uint8Array, pcrs: readonly Uint8Array[]): Uint8Array {
  const bitmap = new Uint8Array(3)
  for (const pcr of QUOTED_PCRS.pcrs) bitmap[pcr >> 3] = (bitmap[pcr >> 3] ?? 0) | (1 << (pcr & 7))
  const values = QUOTED_PCRS.pcrs.map((pcr) => pcrs[pcr] ?? new Uint8Array())
  return concatBytes(
    u32(0xff54_4347),
    u16(0x8018),
    sized(primaryQualifiedName(nodeCrypto, TPM_RH_ENDORSEMENT, akName)),
    sized(extraData),
    new Uint8Array(8), // clock
    u32(1), // resets
    u32(0), // restarts
    Uint8Array.of(1), // the clock is safe
    new Uint8Array(8), // firmware version
    ...[u32(1), u16(SHA256_ID), Uint8Array.of(bitmap.length), bitmap],
    sized(
      new Uint8Array(
        createHash('sha256')
          .update(concatBytes(...values))
          .digest(),
      ),
    ),
  )
}

/** A register of zeros after one extension. */
function extended(digest: Uint8Array): Uint8Array {
  return new Uint8Array(createHash('sha256').update(new Uint8Array(32)).update(digest).digest())
}

function spkiOf(key: KeyObject): Uint8Array {
  return new Uint8Array(key.export({ format: 'der', type: 'spki' }))
}
