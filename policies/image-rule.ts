/**
 * Which image a container runs: the one with this digest, whichever of a repository somebody has signed, or the one whose
 * reference a resource of the verifier holds.
 */
import type { PolicyNode } from './document.ts'
import { RESOURCE_NAME } from './env-rule.ts'

/** Whose signature admits an image. */
export type SignerRule =
  /** A public key, PEM: a resource of the verifier, `repository/type/tag`. */
  | { readonly kind: 'key'; readonly resource: string }
  /** The public key itself, PEM. */
  | { readonly kind: 'key-data'; readonly pem: string }
  /** A certificate of a login; `trustedRoot` is the resource with trusted_root.json. */
  | { readonly kind: 'identity'; readonly issuer: string; readonly subject: string; readonly trustedRoot: string }

export type KeySigner = Extract<SignerRule, { kind: 'key' | 'key-data' }>

export interface ImageRule {
  /** host[:port]/path without tag. */
  readonly repository: string
  /** sha256:… of the manifest (or of an index that the guest binds to its platform's manifest); empty for the two others. */
  readonly digest: string
  /**
   * `repository/type/tag` of the verifier's resource that holds the image's reference, which then stands nowhere else:
   * `repository` is the placeholder's.
   */
  readonly sealedImage: string | undefined
  /** The host chooses the version, among those that one of these has signed; undefined: the digest decides. */
  readonly signedBy: readonly SignerRule[] | undefined
}

/** What the host asks for, in parts. */
export interface AskedImage {
  readonly repository: string
  readonly tag: string | undefined
  readonly digest: string | undefined
}

/** What the host knows of an image whose reference is sealed: an empty one. */
export const SEALED_REPOSITORY = 'caisson.dev/sealed'

const MAX_SIGNERS = 16
const MAX_KEY_CHARACTERS = 8192
const REFERENCE =
  /^(?<repository>[a-z0-9.-]+(:[0-9]{1,5})?(\/[a-z0-9._-]+)+)(:[\w][\w.-]{0,127})?@(?<digest>sha256:[0-9a-f]{64})$/
const REPOSITORY = /^[a-z0-9.-]+(:[0-9]{1,5})?(\/[a-z0-9._-]+)+$/
const TAG = /^[\w][\w.-]{0,127}$/
const DIGEST = /^sha256:[0-9a-f]{64}$/
/** Of a public key, whose text has nothing but letters, digits and these. */
const PUBLIC_KEY = /^-----BEGIN PUBLIC KEY-----\n[\w+/=\n]+-----END PUBLIC KEY-----\n?$/

/** `image`, `signedBy` and `sealedImage` of a container. Throws `MalformedError` ERR_POLICY_MALFORMED. */
export function readImageRule(fields: ReadonlyMap<string, PolicyNode>, container: PolicyNode): ImageRule {
  const [image, sealed, signers] = [fields.get('image'), fields.get('sealedImage'), fields.get('signedBy')]
  if (sealed !== undefined) {
    if (image !== undefined || signers !== undefined) {
      throw sealed.fail('stands beside `image` or `signedBy`: the reference is the one or the other')
    }
    const sealedImage = text(sealed, RESOURCE_NAME, 'must be repository/type/tag')
    return { repository: SEALED_REPOSITORY, digest: '', sealedImage, signedBy: undefined }
  }
  if (image === undefined) throw container.fail('lacks the key image')
  const pinned = parsePinned(image.string())
  if (signers === undefined) {
    if (pinned !== undefined) return { ...pinned, sealedImage: undefined, signedBy: undefined }
    throw image.fail(
      'must be host/path@sha256:<64 hex digits>',
      'Pin the digest: `caisson image inspect REF` prints it. Or name a repository, and who signs in `signedBy`.',
    )
  }
  if (!REPOSITORY.test(image.string())) {
    throw image.fail(
      'must be host/path beside `signedBy`, without tag or digest',
      'A digest needs no signer; that pinned images are signed as well is for `imagePolicy` to say.',
    )
  }
  return { repository: image.string(), digest: '', sealedImage: undefined, signedBy: readSigners(signers) }
}

/** Repository and digest of a reference that pins its bytes; undefined for any other text. */
export function parsePinned(reference: string): Pick<ImageRule, 'repository' | 'digest'> | undefined {
  const { repository, digest } = REFERENCE.exec(reference)?.groups ?? {}
  return repository === undefined || digest === undefined ? undefined : { repository, digest }
}

/** The host's words, as they are and all of them: they are compared, never believed. */
export function splitReference(image: string): AskedImage {
  const at = image.indexOf('@')
  const [name, digest] = at < 0 ? [image, undefined] : [image.slice(0, at), image.slice(at + 1)]
  const lastSlash = name.lastIndexOf('/')
  const colon = name.indexOf(':', lastSlash + 1)
  return colon < 0
    ? { repository: name, tag: undefined, digest }
    : { repository: name.slice(0, colon), tag: name.slice(colon + 1), digest }
}

export function imageAllows(rule: ImageRule, { repository, tag, digest }: AskedImage): boolean {
  if (repository !== rule.repository || (tag !== undefined && !TAG.test(tag))) return false
  if (digest === undefined) return true
  return rule.signedBy === undefined ? digest === rule.digest : DIGEST.test(digest)
}

/**
 * What to pull for a rule that admits what is asked: by digest, where there is one, and without any tag then. Whoever judges
 * an image by its reference has to judge this one: of what the host wrote, a part may decide nothing.
 */
export function admittedReference(
  { repository, digest, signedBy, sealedImage }: ImageRule,
  asked: AskedImage,
): string | { readonly resource: string } {
  if (sealedImage !== undefined) return { resource: sealedImage }
  if (signedBy === undefined) return `${repository}@${digest}`
  return asked.digest === undefined ? `${repository}:${asked.tag ?? 'latest'}` : `${repository}@${asked.digest}`
}

/** "registry.example/web@sha256:…", "registry.example/web signed by default/keys/release", "as default/images/web says" */
export function describeImage({ repository, digest, sealedImage, signedBy }: ImageRule): string {
  if (sealedImage !== undefined) return `as ${sealedImage} says`
  if (signedBy === undefined) return `${repository}@${digest}`
  return `${repository} signed by ${signedBy.map(describeSigner).join(' or ')}`
}

export function describeSigner(signer: SignerRule): string {
  if (signer.kind === 'key') return signer.resource
  if (signer.kind === 'identity') return `${signer.subject} of ${signer.issuer} (roots: ${signer.trustedRoot})`
  return `the key ${signer.pem.replaceAll(/-----[A-Z ]+-----|\n/g, '')}`
}

function readSigners(node: PolicyNode): readonly SignerRule[] {
  const items = node.items()
  if (items.length === 0 || items.length > MAX_SIGNERS) throw node.fail(`must name 1 to ${MAX_SIGNERS} signers`)
  return items.map(readSigner)
}

function readSigner(node: PolicyNode): SignerRule {
  const fields = node.fields(['key', 'keyData', 'issuer', 'subject', 'trustedRoot'])
  const [key, keyData] = [fields.get('key'), fields.get('keyData')]
  const others = fields.size - 1
  if (key !== undefined && others === 0) {
    return { kind: 'key', resource: text(key, RESOURCE_NAME, 'must be repository/type/tag') }
  }
  if (keyData !== undefined && others === 0) {
    const pem = text(keyData, PUBLIC_KEY, 'must be a public key in PEM')
    if (pem.length > MAX_KEY_CHARACTERS)
      throw keyData.fail(`has ${pem.length} characters, at most ${MAX_KEY_CHARACTERS}`)
    return { kind: 'key-data', pem }
  }
  const [issuer, subject, root] = [fields.get('issuer'), fields.get('subject'), fields.get('trustedRoot')]
  if (issuer !== undefined && subject !== undefined && root !== undefined && fields.size === 3) {
    return {
      kind: 'identity',
      issuer: text(issuer, /^https:\/\/[\x21-\x7e]{1,500}$/, 'must be an https URL'),
      subject: text(subject, /^[\x21-\x7e]{1,500}$/, 'must be an address or a URL'),
      trustedRoot: text(root, RESOURCE_NAME, 'must be repository/type/tag'),
    }
  }
  throw node.fail('must have `key`, or `keyData`, or `issuer` with `subject` and `trustedRoot`')
}

function text(node: PolicyNode, pattern: RegExp, problem: string): string {
  const value = node.string()
  if (!pattern.test(value)) throw node.fail(problem)
  return value
}
