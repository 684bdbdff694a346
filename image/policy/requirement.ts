/** What judging one requirement needs, and what it finds. */
import type { CryptoProvider } from '#protocol/crypto-provider'
import { CaissonError, MalformedError, UnverifiedError } from '#protocol/errors'
import type { Digest } from '#protocol/oci/digest'
import type { ImageReference } from '#protocol/oci/reference'
import type { BundleVerifier } from '../signature/bundle.ts'
import type { FoundSignature } from '../signature/found.ts'
import type { OpenPgpVerifier } from '../signature/openpgp.ts'
import type { ConfiguredBytes } from './policy.ts'

/** Bytes that the policy names by path or `kbs:///` URI. */
export type KeyResolver = (path: string) => Promise<string | Uint8Array>

/** Parts that most policies do not need, loaded when one does. */
export interface SignatureEngines {
  readonly openpgp: () => Promise<OpenPgpVerifier>
  readonly bundles: () => Promise<BundleVerifier>
}

export interface RequirementContext {
  /** As messages name the image. */
  readonly image: string
  readonly reference: ImageReference | undefined
  readonly digests: readonly Digest[]
  readonly signaturesOf: (digest: Digest, kind: FoundSignature['kind']) => Promise<readonly FoundSignature[]>
  readonly resolveKey: KeyResolver
  readonly crypto: CryptoProvider
  readonly engines: SignatureEngines | undefined
  readonly now: Date
  /** Of the requirement: `docker["registry.example/team"][0]`. */
  readonly place: string
}

/** Every signer whose signature satisfies the requirement, and why the others do not. */
export interface RequirementFinding {
  /** "key sha256:…", "OpenPGP key …", "joe@example.com of https://…": equal names are one signer. */
  readonly signers: readonly string[]
  readonly failures: readonly CaissonError[]
}

/** Judges each signature of one kind over each digest. What a signature throws counts against it alone. */
export async function judgeEach<Kind extends FoundSignature['kind']>(
  context: RequirementContext,
  kind: Kind,
  judge: (found: Extract<FoundSignature, { kind: Kind }>, digest: Digest) => Promise<string> | string,
): Promise<RequirementFinding> {
  const signers = new Set<string>()
  const failures: CaissonError[] = []
  for (const digest of context.digests) {
    for (const found of await context.signaturesOf(digest, kind)) {
      if (found.kind !== kind) continue
      try {
        signers.add(await judge(found as Extract<FoundSignature, { kind: Kind }>, digest))
      } catch (error) {
        failures.push(asVerdict(error, found.source))
      }
    }
  }
  return { signers: [...signers], failures }
}

/** A signature out of form is no signature: a verdict, where a policy out of form would be an error. */
function asVerdict(error: unknown, source: string): CaissonError {
  if (error instanceof MalformedError) {
    return new UnverifiedError('ERR_IMAGE_SIGNATURE_FORMAT', `${source}: ${error.message}`, {
      cause: error,
      hint: 'Sign the image again: this signature cannot be read.',
    })
  }
  if (error instanceof CaissonError) return error
  throw error
}

export async function readConfigured(bytes: ConfiguredBytes, context: RequirementContext): Promise<Uint8Array> {
  if (bytes.kind === 'inline') return bytes.bytes
  const found = await context.resolveKey(bytes.path)
  return typeof found === 'string' ? new TextEncoder().encode(found) : found
}

export function readAllConfigured(
  list: readonly ConfiguredBytes[],
  context: RequirementContext,
): Promise<readonly Uint8Array[]> {
  return Promise.all(list.map((bytes) => readConfigured(bytes, context)))
}
