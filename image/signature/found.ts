/** Signatures as they are found beside an image: nothing of them is verified. */
export type FoundSignature = FoundCosign | FoundOpenPgp | FoundBundle

/** A "simple signing" payload with what cosign writes beside it. */
export interface FoundCosign {
  readonly kind: 'cosign'
  readonly payload: Uint8Array
  readonly annotations: ReadonlyMap<string, string>
  /** For messages: "signature 1 of sha256-….sig". */
  readonly source: string
}

/** An OpenPGP signed message, binary. */
export interface FoundOpenPgp {
  readonly kind: 'openpgp'
  readonly message: Uint8Array
  readonly source: string
}

/** A sigstore bundle, JSON. */
export interface FoundBundle {
  readonly kind: 'bundle'
  readonly json: Uint8Array
  readonly source: string
}

/** Predicate type of the statement with which cosign 3 signs an image. */
export const COSIGN_SIGNATURE = 'https://sigstore.dev/cosign/sign/v1'
export const SIGNATURE_ANNOTATION = 'dev.cosignproject.cosign/signature'
export const CERTIFICATE_ANNOTATION = 'dev.sigstore.cosign/certificate'
export const CHAIN_ANNOTATION = 'dev.sigstore.cosign/chain'
/** Despite its name not a sigstore bundle: the log's promise (SET) with the entry it is about. */
export const REKOR_ANNOTATION = 'dev.sigstore.cosign/bundle'
