/**
 * The endorsement keys that are known here: the TCG templates they are made from (EK Credential Profile 2.5, appendix B),
 * where their certificates lie, and how they are authorised. The guest makes the key from the template; the verifier
 * builds the public area from template and certificate, and so never takes any of it from the guest.
 */
import type { HashAlgorithm } from '#protocol/crypto-provider'
import { fromHex } from '#protocol/encoding'
import { type CurveName, TPM_ALG } from './parse/algorithms.ts'
import { OBJECT_ATTRIBUTE, type PublicArea, type SymmetricDefinition } from './parse/public-area.ts'

export type EkKind = 'rsa-2048' | 'p-256' | 'p-384'

/** PolicySecret(endorsement), SHA-256: "PolicyA". */
export const POLICY_A_SHA256: Uint8Array = fromHex(
  '837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa',
  'PolicyA',
)
export const POLICY_A_SHA384: Uint8Array = fromHex(
  '8bbf2266537c171cb56e403c4dc1d4b64f432611dc386e6f532050c3278c930e143e8bb1133824ccb431053871c6db53',
  'PolicyA',
)
/** PolicyAuthorizeNV of the index 01c07f02: the branch of PolicyB that is never taken here. */
export const POLICY_C_SHA384: Uint8Array = fromHex(
  'd6032ce61f2fb3c240eb3cf6a33237ef2b6a16f4293c22b455e261cffd217ad5b4947c2d73e63005eed2dc2b3593d165',
  'PolicyC',
)
/** PolicyOR(PolicyA, PolicyC), SHA-384. */
const POLICY_B_SHA384 = fromHex(
  'b26e7d28d11a50bc53d882bcf5fd3a1a074148bb35d3b4e4cb1c0ad9bde419cacb47ba09699646150f9fc000f3f80e12',
  'PolicyB',
)

const LOW_RANGE_ATTRIBUTES =
  OBJECT_ATTRIBUTE.fixedTPM |
  OBJECT_ATTRIBUTE.fixedParent |
  OBJECT_ATTRIBUTE.sensitiveDataOrigin |
  OBJECT_ATTRIBUTE.adminWithPolicy |
  OBJECT_ATTRIBUTE.restricted |
  OBJECT_ATTRIBUTE.decrypt

export interface EkTemplate {
  readonly kind: EkKind
  /** NV index of the certificate. */
  readonly certificateIndex: number
  readonly nameAlgorithm: HashAlgorithm
  readonly symmetric: SymmetricDefinition
  /** Digests for PolicyOR after PolicySecret; empty when PolicySecret alone satisfies the key's policy. */
  readonly policyOr: readonly Uint8Array[]
  /** Public area as TPM2_CreatePrimary wants it: `unique` as the template has it. */
  readonly creation: PublicArea
}

const AES_128: SymmetricDefinition = { algorithm: TPM_ALG.AES, keyBits: 128, mode: TPM_ALG.CFB }
const AES_256: SymmetricDefinition = { algorithm: TPM_ALG.AES, keyBits: 256, mode: TPM_ALG.CFB }

export const EK_TEMPLATES: Readonly<Record<EkKind, EkTemplate>> = {
  // Template L-1
  'rsa-2048': {
    kind: 'rsa-2048',
    certificateIndex: 0x01c0_0002,
    nameAlgorithm: 'sha256',
    symmetric: AES_128,
    policyOr: [],
    creation: {
      type: 'rsa',
      nameAlgorithm: 'sha256',
      attributes: LOW_RANGE_ATTRIBUTES,
      authPolicy: POLICY_A_SHA256,
      symmetric: AES_128,
      scheme: null,
      keyBits: 2048,
      exponent: 0,
      modulus: new Uint8Array(256),
    },
  },
  // Template L-2
  'p-256': {
    kind: 'p-256',
    certificateIndex: 0x01c0_000a,
    nameAlgorithm: 'sha256',
    symmetric: AES_128,
    policyOr: [],
    creation: ecc('P-256', { nameAlgorithm: 'sha256', attributes: LOW_RANGE_ATTRIBUTES, unique: new Uint8Array(32) }),
  },
  // Template H-3: unique is empty, and userWithAuth is set
  'p-384': {
    kind: 'p-384',
    certificateIndex: 0x01c0_0016,
    nameAlgorithm: 'sha384',
    symmetric: AES_256,
    policyOr: [POLICY_A_SHA384, POLICY_C_SHA384],
    creation: ecc('P-384', {
      nameAlgorithm: 'sha384',
      attributes: LOW_RANGE_ATTRIBUTES | OBJECT_ATTRIBUTE.userWithAuth,
      unique: new Uint8Array(),
    }),
  },
}

/** In the order in which the guest looks for certificates: elliptic curves first, since their keys are made in a moment. */
export const EK_PREFERENCE: readonly EkKind[] = ['p-384', 'p-256', 'rsa-2048']

function ecc(
  curve: CurveName,
  options: { nameAlgorithm: 'sha256' | 'sha384'; attributes: number; unique: Uint8Array },
): PublicArea {
  return {
    type: 'ecc',
    nameAlgorithm: options.nameAlgorithm,
    attributes: options.attributes,
    authPolicy: options.nameAlgorithm === 'sha256' ? POLICY_A_SHA256 : POLICY_B_SHA384,
    symmetric: options.nameAlgorithm === 'sha256' ? AES_128 : AES_256,
    scheme: null,
    curve,
    kdf: null,
    x: options.unique,
    y: options.unique,
  }
}
