/** What a pull tells while it runs. Digests name public things: the host sees them too. */
import type { Digest } from '#protocol/oci/digest'

export type PullProgress =
  | {
      readonly type: 'resolved'
      readonly manifestDigest: Digest
      readonly layers: number
      /** Bytes in the registry, all layers. */
      readonly compressedBytes: number
    }
  /** The image policy admits the image; `place` is the rule that decided. */
  | { readonly type: 'judged'; readonly place: string }
  | {
      readonly type: 'layer'
      /** 0 is the base. */
      readonly layer: number
      readonly digest: Digest
      readonly state: 'present' | 'fetching' | 'done'
      readonly fetchedBytes: number
      readonly compressedBytes: number
      readonly tarBytes: number
    }
  /** Something goes wrong and is tried again, or is slow; `layer` is undefined before the layers. */
  | {
      readonly type: 'trouble'
      readonly layer: number | undefined
      readonly code: string
      readonly why: string
      /** 0: at once, or nothing had to be tried again. */
      readonly retryInMs: number
    }
  /** All layers are there; their index is being made, or was there. */
  | { readonly type: 'index'; readonly state: 'present' | 'indexing' | 'done' }
