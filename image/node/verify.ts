/** Judges an image by a signature policy, exactly as the guest does before it pulls: in a registry or in a folder. */
import { realpath } from 'node:fs/promises'
import { MalformedError } from '#protocol/errors'
import { nodeCrypto } from '#protocol/node/crypto'
import type { Digest } from '#protocol/oci/digest'
import { type ImageReference, parseReference } from '#protocol/oci/reference'
import { DEFAULT_LIMITS } from '../limits.ts'
import { LINUX_AMD64, selectPlatform } from '../manifest/platform.ts'
import { evaluateSignaturePolicy, type Judgement, type KeyResolver } from '../policy/evaluate.ts'
import type { SignaturePolicy } from '../policy/policy.ts'
import { resolveImage } from '../pull/resolve-image.ts'
import type { RegistryClient } from '../registry/client.ts'
import { type LookasideSource, signaturesIn } from '../signature/cosign.ts'
import type { FoundSignature } from '../signature/found.ts'
import { isDirImage, openDirImage } from './dir-layout.ts'
import { signatureEngines } from './engines.ts'
import { OciLayout } from './layout.ts'
import { signaturesInLayout } from './layout-signatures.ts'

interface JudgeOptions {
  readonly policy: SignaturePolicy
  /** Keys that the policy names by path. */
  readonly resolveKey: KeyResolver
  /** When it is judged. Default: now. */
  readonly now?: Date
}

export interface VerifyOptions extends JudgeOptions {
  readonly reference: string | ImageReference
  readonly registry: RegistryClient
  /** Where OpenPGP signatures are kept, if anywhere: see ../signature/lookaside.ts. */
  readonly lookaside?: LookasideSource
  readonly signal?: AbortSignal
}

export interface VerifiedImage extends Judgement {
  readonly manifestDigest: Digest
  readonly indexDigest: Digest | undefined
}

/** Errors: those of `evaluateSignaturePolicy` and of the registry client. */
export async function verifyImage(options: VerifyOptions): Promise<VerifiedImage> {
  const { registry, signal, lookaside } = options
  const reference =
    typeof options.reference === 'string' ? parseReference(options.reference, 'latest') : options.reference
  const { manifestDigest, indexDigest } = await resolveImage(registry, reference, { platform: LINUX_AMD64, signal })
  const judgement = await evaluateSignaturePolicy({
    ...options,
    reference,
    digests: indexDigest === undefined ? [manifestDigest] : [manifestDigest, indexDigest],
    signaturesOf: signaturesIn(registry, reference, {
      limits: DEFAULT_LIMITS,
      signal,
      lookaside,
    }),
    crypto: registry.crypto,
    engines: signatureEngines,
  })
  return { ...judgement, manifestDigest, indexDigest }
}

export interface VerifyFolderOptions extends JudgeOptions {
  /** An OCI layout, or a folder as `skopeo copy … dir:` writes it. */
  readonly folder: string
  /** The name it is judged under. Without it the policy's `dir` or `oci` scopes decide, and no name can match. */
  readonly reference: string | undefined
}

/** Errors: those of `evaluateSignaturePolicy`, and ERR_OCI_LAYOUT, ERR_DIR_IMAGE and their like. */
export async function verifyFolder(options: VerifyFolderOptions): Promise<VerifiedImage> {
  const { folder } = options
  const reference = options.reference === undefined ? undefined : parseReference(options.reference, 'latest')
  const image = (await isDirImage(folder)) ? await dirImage(folder) : await layoutImage(folder)
  // A name with a digest promises bytes: other bytes under it are not the image.
  if (reference?.digest !== undefined && !image.digests.includes(reference.digest)) {
    throw new MalformedError(
      'ERR_DIGEST_MISMATCH',
      `${folder}: is ${image.digests.join(' in ')}, not ${reference.digest}`,
    )
  }
  const { digests, signaturesOf, stored } = image
  const judgement = await evaluateSignaturePolicy({
    ...options,
    reference,
    stored,
    digests,
    signaturesOf,
    crypto: nodeCrypto,
    engines: signatureEngines,
  })
  return { ...judgement, manifestDigest: image.manifestDigest, indexDigest: digests[1] }
}

interface FolderImage {
  readonly stored: { readonly transport: 'dir' | 'oci'; readonly path: string }
  readonly manifestDigest: Digest
  readonly digests: readonly Digest[]
  readonly signaturesOf: (digest: Digest, kind: FoundSignature['kind']) => Promise<readonly FoundSignature[]>
}

async function dirImage(folder: string): Promise<FolderImage> {
  const { path, digest, signaturesOf } = await openDirImage(folder)
  return { stored: { transport: 'dir', path }, manifestDigest: digest, digests: [digest], signaturesOf }
}

async function layoutImage(folder: string): Promise<FolderImage> {
  const layout = new OciLayout(folder)
  const entries = await layout.entries()
  const images = []
  for (const entry of entries) {
    const opened = await layout.document(entry)
    const attached = opened.document.kind === 'manifest' && opened.document.subject !== undefined
    if (!attached && !/\.sig$/.test(entry.annotations.get('org.opencontainers.image.ref.name') ?? ''))
      images.push(opened)
  }
  const [image, ...more] = images
  if (image === undefined || more.length > 0) {
    throw new MalformedError('ERR_OCI_LAYOUT', `${folder}: index.json must name exactly one image`)
  }
  const stored = { transport: 'oci', path: await realpath(folder) } as const
  const signaturesOf = signaturesInLayout(layout, entries)
  const { digest } = image.descriptor
  if (image.document.kind === 'manifest') return { stored, manifestDigest: digest, digests: [digest], signaturesOf }
  const chosen = selectPlatform(image.document, LINUX_AMD64, folder)
  await layout.document(chosen)
  return { stored, manifestDigest: chosen.digest, digests: [chosen.digest, digest], signaturesOf }
}
