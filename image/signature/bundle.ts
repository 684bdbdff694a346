export interface BundleVerifier {
  readonly todo: true
}
export const sigstoreBundles: BundleVerifier = { todo: true }
