/** Judges a sigstore bundle about a file, or about anything that goes by its digest: what `cosign verify-blob` does. */
import { DeniedError } from '#protocol/errors'
import { nodeCrypto } from '#protocol/node/crypto'
import { computeDigest, type Digest } from '#protocol/oci/digest'
import { sigstoreBundles, type VerifiedBundle } from '../signature/bundle.ts'
import { parseSigningKey } from '../signature/public-key.ts'

export interface VerifyArtifactOptions {
  /** Its bytes, or its digest: that is enough for bundles with a statement. */
  readonly artifact: Uint8Array | Digest
  readonly bundle: Uint8Array
  /** trusted_root.json. Without it, which only a key permits, no log entry is asked for. */
  readonly trustedRoot: Uint8Array | undefined
  /** PEM. Without it a certificate must have signed. */
  readonly key: Uint8Array | undefined
}

/** Errors: those of `BundleVerifier`. */
export function verifyArtifact({ artifact, bundle, trustedRoot, key }: VerifyArtifactOptions): VerifiedBundle {
  const keys = key === undefined ? [] : [parseSigningKey(key, 'public key')]
  const trust = sigstoreBundles.readTrust({ keys, trustedRoot }, 'trusted root')
  const subject =
    typeof artifact === 'string'
      ? ({ kind: 'digest', digest: artifact } as const)
      : ({ kind: 'artifact', bytes: artifact, digest: computeDigest(nodeCrypto, artifact) } as const)
  return sigstoreBundles.verify(bundle, trust, subject, { crypto: nodeCrypto, what: 'bundle' })
}

/** Throws `DeniedError` ERR_IMAGE_SIGNER unless a certificate with this identity signed. */
export function requireIdentity(
  { signer }: VerifiedBundle,
  wanted: { readonly issuer: string; readonly subject: string },
): void {
  const found = signer.kind === 'key' ? 'a key without identity' : `${signer.subjects.join(', ')} of ${signer.issuer}`
  if (signer.kind === 'certificate' && signer.issuer === wanted.issuer && signer.subjects.includes(wanted.subject))
    return
  throw new DeniedError(
    'ERR_IMAGE_SIGNER',
    `bundle: signed by ${found}, wanted ${wanted.subject} of ${wanted.issuer}`,
    {
      field: 'identity',
      allowed: `${wanted.subject} of ${wanted.issuer}`,
      asked: found,
      hint: 'Name the identity that signed, if it is to be trusted.',
    },
  )
}
