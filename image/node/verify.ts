/** Judges an image in a registry by a signature policy, exactly as the guest does before it pulls. */

import type { Digest } from '#protocol/oci/digest'
import { type ImageReference, parseReference } from '#protocol/oci/reference'
import { DEFAULT_LIMITS } from '../limits.ts'
import { LINUX_AMD64 } from '../manifest/platform.ts'
import { evaluateSignaturePolicy, type Judgement, type KeyResolver } from '../policy/evaluate.ts'
import type { SignaturePolicy } from '../policy/policy.ts'
import { resolveImage } from '../pull/pull-image.ts'
import type { RegistryClient } from '../registry/client.ts'
import { fetchSignatures } from '../signature/cosign.ts'

export interface VerifyOptions {
  readonly reference: string | ImageReference
  readonly registry: RegistryClient
  readonly policy: SignaturePolicy
  /** Keys that the policy names by path. */
  readonly resolveKey: KeyResolver
  readonly signal?: AbortSignal
}

export interface VerifiedImage extends Judgement {
  readonly manifestDigest: Digest
  readonly indexDigest: Digest | undefined
}

/** Errors: those of `evaluateSignaturePolicy` and of the registry client. */
export async function verifyImage(options: VerifyOptions): Promise<VerifiedImage> {
  const { registry, signal } = options
  const reference =
    typeof options.reference === 'string' ? parseReference(options.reference, 'latest') : options.reference
  const { manifestDigest, indexDigest } = await resolveImage(registry, reference, { platform: LINUX_AMD64, signal })
  const judgement = await evaluateSignaturePolicy({
    policy: options.policy,
    reference,
    digests: indexDigest === undefined ? [manifestDigest] : [manifestDigest, indexDigest],
    signaturesOf: (digest) => fetchSignatures(registry, reference, digest, { limits: DEFAULT_LIMITS, signal }),
    resolveKey: options.resolveKey,
    crypto: registry.crypto,
  })
  return { ...judgement, manifestDigest, indexDigest }
}
