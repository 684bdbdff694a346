/**
 * Judges an image by a signature policy: every requirement of the most specific scope must hold.
 *
 * Runs before a single layer is fetched. The digests are of manifests that were fetched and verified; the signatures
 * are claims until one verifies with a key that the policy names.
 */
import type { CryptoProvider } from '#protocol/crypto-provider'
import { CaissonError, DeniedError, UnavailableError, UnverifiedError } from '#protocol/errors'
import type { Digest } from '#protocol/oci/digest'
import { formatReference, type ImageReference } from '#protocol/oci/reference'
import type { FoundSignature } from '../signature/cosign.ts'
import { parsePayload } from '../signature/payload.ts'
import { parseSigningKey } from '../signature/public-key.ts'
import { identityMatches } from './identity.ts'
import type { KeySource, SignaturePolicy, SigstoreSigned } from './policy.ts'
import { requirementsFor } from './scopes.ts'

/** PEM of a key that the policy names by path or `kbs:///` URI. */
export type KeyResolver = (path: string) => Promise<string>

export interface JudgementInput {
  /** Undefined refuses: an image that nobody judged is not run. */
  readonly policy: SignaturePolicy | undefined
  /** As it was asked for, never the name of a mirror. */
  readonly reference: ImageReference
  /**
   * The manifest that would run, and the index it was selected from, if one: a signature over either vouches, since the
   * index names the manifest by digest.
   */
  readonly digests: readonly Digest[]
  readonly signaturesOf: (digest: Digest) => Promise<readonly FoundSignature[]>
  readonly resolveKey: KeyResolver
  readonly crypto: CryptoProvider
}

export interface Judgement {
  /** Which list of the policy decided: `docker["registry.example/team"]`. */
  readonly place: string
  readonly requirements: readonly string[]
}

/**
 * Throws `DeniedError` ERR_IMAGE_REJECTED or ERR_IMAGE_IDENTITY, `UnverifiedError` ERR_IMAGE_UNSIGNED,
 * ERR_IMAGE_SIGNATURE or ERR_IMAGE_POLICY_MISSING, `UnavailableError` ERR_IMAGE_POLICY_UNSUPPORTED.
 */
export async function evaluateSignaturePolicy(input: JudgementInput): Promise<Judgement> {
  if (input.policy === undefined) {
    throw new UnverifiedError('ERR_IMAGE_POLICY_MISSING', `${nameOf(input)}: there is no image policy to judge it by`, {
      hint: 'Store a policy.json at the verifier and name it in the initdata as image_security_policy_uri.',
    })
  }
  const { place, requirements } = requirementsFor(input.policy, input.reference)
  for (const [index, requirement] of requirements.entries()) {
    const here = `${place}[${index}]`
    switch (requirement.type) {
      case 'insecureAcceptAnything':
        break
      case 'reject':
        throw new DeniedError('ERR_IMAGE_REJECTED', `${nameOf(input)}: rejected by the image policy, ${place}`, {
          field: place,
          allowed: 'nothing',
          asked: formatReference(input.reference),
          hint: 'Add a scope for this repository to policy.json if the image is to be admitted.',
        })
      case 'signedBy':
        throw unsupported(here, 'signedBy (GPG)')
      case 'signedBaseLayer':
        throw unsupported(here, requirement.type)
      case 'sigstoreSigned':
        await requireSigstore(requirement, here, input)
        break
      default:
        requirement satisfies never
    }
  }
  return { place, requirements: requirements.map(({ type }) => type) }
}

async function requireSigstore(requirement: SigstoreSigned, place: string, input: JudgementInput): Promise<void> {
  if (requirement.keyless !== undefined) throw unsupported(place, `sigstoreSigned with ${requirement.keyless}`)
  if (requirement.rekor) throw unsupported(place, 'sigstoreSigned with a Rekor key')
  const keys = await Promise.all(requirement.keys.map((key, index) => readKey(key, `${place}.key ${index + 1}`, input)))

  const failures: CaissonError[] = []
  for (const digest of input.digests) {
    for (const found of await input.signaturesOf(digest)) {
      const failure = judgeSignature(found, { digest, keys, requirement, place, input })
      if (failure === undefined) return
      failures.push(failure)
    }
  }
  // A signature that verified but says another name is nearer to acceptance than one that did not verify at all.
  const [first] = failures.sort((a, b) => Number(b instanceof DeniedError) - Number(a instanceof DeniedError))
  if (first !== undefined) throw first
  throw new UnverifiedError('ERR_IMAGE_UNSIGNED', `${nameOf(input)}: has no signature, and ${place} demands one`, {
    hint: 'Sign it: caisson image sign --key KEY REFERENCE.',
  })
}

interface SignatureContext {
  readonly digest: Digest
  readonly keys: readonly Uint8Array[]
  readonly requirement: SigstoreSigned
  readonly place: string
  readonly input: JudgementInput
}

/** Undefined when the signature satisfies the requirement, else why not. */
function judgeSignature(found: FoundSignature, context: SignatureContext): CaissonError | undefined {
  const { digest, keys, requirement, place, input } = context
  const genuine = keys.some((publicKey) =>
    input.crypto.verify({
      scheme: 'ecdsa',
      hash: 'sha256',
      publicKey,
      data: found.payload,
      signature: found.signature,
    }),
  )
  if (!genuine) {
    return new UnverifiedError(
      'ERR_IMAGE_SIGNATURE',
      `${nameOf(input)}: signed, but not by a key that ${place} names (${keys.length} tried)`,
      { hint: 'Sign the image with the key of the policy, or add the public key it was signed with to the policy.' },
    )
  }
  try {
    const payload = parsePayload(found.payload, 'signed payload')
    if (payload.manifestDigest !== digest) {
      return new UnverifiedError(
        'ERR_IMAGE_SIGNATURE',
        `${nameOf(input)}: the signature is for ${payload.manifestDigest}`,
        {
          hint: 'The signature was copied from another image. Sign this one.',
        },
      )
    }
    if (identityMatches(requirement.identity, input.reference, payload.dockerReference)) return undefined
    return new DeniedError(
      'ERR_IMAGE_IDENTITY',
      `${nameOf(input)}: signed as ${JSON.stringify(payload.dockerReference)}, which ${requirement.identity.type} refuses`,
      {
        field: `${place}.signedIdentity`,
        allowed: requirement.identity.type,
        asked: payload.dockerReference,
        hint: 'Sign the image under the name it is pulled by, or choose another signedIdentity.',
      },
    )
  } catch (error) {
    if (error instanceof CaissonError) return error
    throw error
  }
}

async function readKey(source: KeySource, place: string, input: JudgementInput): Promise<Uint8Array> {
  const pem = source.kind === 'inline' ? source.pem : await input.resolveKey(source.path)
  return parseSigningKey(pem, place)
}

function unsupported(place: string, what: string): UnavailableError {
  return new UnavailableError('ERR_IMAGE_POLICY_UNSUPPORTED', `image policy: ${place}: ${what} is not supported yet`, {
    hint: 'Use sigstoreSigned with an ECDSA P-256 key (keyData, keyDatas or keyPath).',
  })
}

function nameOf({ reference }: JudgementInput): string {
  return formatReference(reference)
}
