/**
 * What a policy.json (containers-policy.json(5)) says, parsed. Requirements whose type starts with "caisson" are this
 * project's extensions; every other is of the manual page.
 */
export interface SignaturePolicy {
  readonly default: readonly Requirement[]
  /** Scopes of the `docker` transport: registry, namespace, repository, full reference, `*.` wildcard, or "". */
  readonly docker: ReadonlyMap<string, readonly Requirement[]>
  /** The other transports, as named there: "dir", "oci", "docker-archive"… to their scopes. */
  readonly transports: ReadonlyMap<string, ReadonlyMap<string, readonly Requirement[]>>
}

export type Requirement =
  | { readonly type: 'insecureAcceptAnything' }
  | { readonly type: 'reject' }
  | SignedBy
  /** Reserved by containers/image and implemented nowhere: it admits no image. */
  | { readonly type: 'signedBaseLayer' }
  | SigstoreSigned
  | CaissonBundle
  | CaissonThreshold

/** Simple signing with OpenPGP keys. */
export interface SignedBy {
  readonly type: 'signedBy'
  /** "GPGKeys"; the three others that the manual page reserves admit no image. */
  readonly keyType: string
  /** Keyrings, binary or armored: any key in any of them will do. */
  readonly keys: readonly ConfiguredBytes[]
  readonly identity: IdentityRule
}

/** cosign signatures by keys, by Fulcio certificates, or by certificates of an own authority. */
export interface SigstoreSigned {
  readonly type: 'sigstoreSigned'
  readonly by: SigstoreSigner
  /** PEM of transparency-log keys, any of which must have promised inclusion. Empty: none is asked for. */
  readonly rekor: readonly ConfiguredBytes[]
  readonly identity: IdentityRule
}

export type SigstoreSigner =
  | { readonly kind: 'keys'; readonly keys: readonly ConfiguredBytes[] }
  | {
      readonly kind: 'fulcio'
      readonly ca: ConfiguredBytes
      readonly oidcIssuer: string
      readonly subjectEmail: string
    }
  | {
      readonly kind: 'pki'
      readonly roots: ConfiguredBytes
      readonly intermediates: ConfiguredBytes | undefined
      readonly subjectHostname: string | undefined
      readonly subjectEmail: string | undefined
    }

/**
 * Extension: a sigstore bundle (cosign 3) that names the image's digest. Such a bundle names no repository, so there is
 * no signedIdentity: which repositories a signer may sign is said by the scope this stands under.
 */
export interface CaissonBundle {
  readonly type: 'caissonBundle'
  readonly keys: readonly ConfiguredBytes[]
  readonly identities: readonly CertificateIdentity[]
  /** trusted_root.json. Without it, which only keys permit, neither log entry nor timestamp is asked for. */
  readonly trustedRoot: ConfiguredBytes | undefined
  /** Of the in-toto statement. */
  readonly predicateTypes: readonly string[]
  /** SLSA provenance: each list, where not empty, must contain what the statement says. */
  readonly builders: readonly string[]
  readonly sources: readonly string[]
}

/** Exactly one of `subject` and `subjectPrefix` is set. */
export interface CertificateIdentity {
  readonly issuer: string
  readonly subject: string | undefined
  readonly subjectPrefix: string | undefined
}

/** Extension: at least `count` of the requirements must hold, each by a signature of its own. */
export interface CaissonThreshold {
  readonly type: 'caissonThreshold'
  readonly count: number
  readonly of: readonly (SignedBy | SigstoreSigned | CaissonBundle)[]
}

export type ConfiguredBytes =
  | { readonly kind: 'inline'; readonly bytes: Uint8Array }
  /** "kbs:///repo/type/tag" or a file's path, for the resolver to fetch. */
  | { readonly kind: 'path'; readonly path: string }

export type IdentityRule =
  | { readonly type: 'matchExact' }
  | { readonly type: 'matchRepoDigestOrExact' }
  | { readonly type: 'matchRepository' }
  | { readonly type: 'exactReference'; readonly dockerReference: string }
  | { readonly type: 'exactRepository'; readonly dockerRepository: string }
  | { readonly type: 'remapIdentity'; readonly prefix: string; readonly signedPrefix: string }
