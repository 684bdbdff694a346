/** What a policy.json (containers-policy.json) says, parsed. */
export interface SignaturePolicy {
  readonly default: readonly Requirement[]
  /** Scopes of the `docker` transport: registry, namespace, repository, full reference, `*.` wildcard, or "". */
  readonly docker: ReadonlyMap<string, readonly Requirement[]>
}

export type Requirement =
  | { readonly type: 'insecureAcceptAnything' }
  | { readonly type: 'reject' }
  | { readonly type: 'signedBy' }
  /** Reserved by containers/image and implemented nowhere. */
  | { readonly type: 'signedBaseLayer' }
  | SigstoreSigned

export interface SigstoreSigned {
  readonly type: 'sigstoreSigned'
  /** One of them must have signed. Empty when `keyless` says by what else. */
  readonly keys: readonly KeySource[]
  readonly keyless: 'fulcio' | 'pki' | undefined
  /** Whether an entry in a transparency log is asked for. */
  readonly rekor: boolean
  readonly identity: IdentityRule
}

export type KeySource =
  | { readonly kind: 'inline'; readonly pem: string }
  /** "kbs:///repo/type/tag" or a file's path, for the resolver to fetch. */
  | { readonly kind: 'path'; readonly path: string }

export type IdentityRule =
  | { readonly type: 'matchExact' }
  | { readonly type: 'matchRepoDigestOrExact' }
  | { readonly type: 'matchRepository' }
  | { readonly type: 'exactReference'; readonly dockerReference: string }
  | { readonly type: 'exactRepository'; readonly dockerRepository: string }
  | { readonly type: 'remapIdentity'; readonly prefix: string; readonly signedPrefix: string }
