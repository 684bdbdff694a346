/** OCI image layouts (image-spec 1.1 image-layout.md): a folder with `oci-layout`, `index.json` and `blobs/`. */
import { createReadStream } from 'node:fs'
import { readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { MalformedError, UnavailableError } from '#protocol/errors'
import { nodeCrypto } from '#protocol/node/crypto'
import type { Descriptor } from '#protocol/oci/descriptor'
import { type Digest, digestAlgorithm, digestHex, verifyDigest } from '#protocol/oci/digest'
import { INDEX_TYPES } from '#protocol/oci/media-types'
import { type ImageIndex, type ImageManifest, parseManifest } from '../manifest/manifest.ts'

const MAX_DOCUMENT_BYTES = 4 * 1024 * 1024

export interface LayoutDocument {
  readonly bytes: Uint8Array
  readonly descriptor: Descriptor
  readonly document: ImageManifest | ImageIndex
}

export class OciLayout {
  readonly folder: string

  constructor(folder: string) {
    this.folder = folder
  }

  /** The one image in it. Throws `MalformedError` ERR_OCI_LAYOUT when there is not exactly one. */
  async image(): Promise<LayoutDocument> {
    const [entry, ...more] = await this.entries()
    if (entry === undefined || more.length > 0) {
      throw new MalformedError('ERR_OCI_LAYOUT', `${this.folder}: index.json must name exactly one image`)
    }
    return await this.document(entry)
  }

  /** What index.json names: images, and what belongs to them. */
  async entries(): Promise<readonly Descriptor[]> {
    const index = parseManifest(await this.#file('index.json'), `${this.folder}/index.json`)
    if (index.kind !== 'index') throw new MalformedError('ERR_OCI_LAYOUT', `${this.folder}: index.json is no index`)
    return index.manifests
  }

  /** A blob that fits in memory, verified. */
  async smallBlob(descriptor: Descriptor, maxBytes: number): Promise<Uint8Array> {
    await this.checkBlob(descriptor)
    if (descriptor.size > maxBytes) {
      throw new MalformedError('ERR_OCI_LAYOUT', `${descriptor.digest}: ${descriptor.size} bytes, at most ${maxBytes}`)
    }
    const bytes = await readFile(this.blobPath(descriptor.digest))
    verifyDigest(nodeCrypto, bytes, descriptor.digest, `${this.folder}: ${descriptor.digest}`)
    return bytes
  }

  /** A manifest or index that lies in the layout, verified. */
  async document(descriptor: Descriptor): Promise<LayoutDocument> {
    const bytes = await this.#file(this.#blobName(descriptor.digest))
    verifyDigest(nodeCrypto, bytes, descriptor.digest, `${this.folder}: ${descriptor.digest}`)
    const document = parseManifest(bytes, `${this.folder}: ${descriptor.digest}`, descriptor.mediaType)
    return { bytes, descriptor, document }
  }

  /** The documents below an index, one level. */
  async children(document: LayoutDocument): Promise<readonly LayoutDocument[]> {
    if (document.document.kind === 'manifest') return []
    const nested = document.document.manifests.find(({ mediaType }) => INDEX_TYPES.has(mediaType))
    if (nested !== undefined) throw new MalformedError('ERR_OCI_LAYOUT', `${this.folder}: an index within an index`)
    return await Promise.all(document.document.manifests.map((entry) => this.document(entry)))
  }

  /** Throws ERR_OCI_LAYOUT_MISSING or ERR_OCI_LAYOUT when a blob is not there or not as long as described. */
  async checkBlob(descriptor: Descriptor): Promise<void> {
    const { size } = await this.#found(stat(this.blobPath(descriptor.digest)), descriptor.digest)
    if (size !== descriptor.size) {
      throw new MalformedError(
        'ERR_OCI_LAYOUT',
        `${this.folder}: ${descriptor.digest} has ${size} bytes, described as ${descriptor.size}`,
      )
    }
  }

  readBlob(digest: Digest): AsyncIterable<Uint8Array> {
    return createReadStream(this.blobPath(digest), { highWaterMark: 1024 * 1024 })
  }

  #blobName(digest: Digest): string {
    return join('blobs', digestAlgorithm(digest), digestHex(digest))
  }

  /** Where a blob of this name lies, if it does. */
  blobPath(digest: Digest): string {
    return join(this.folder, this.#blobName(digest))
  }

  async #file(name: string): Promise<Uint8Array> {
    const path = join(this.folder, name)
    const { size } = await this.#found(stat(path), name)
    if (size > MAX_DOCUMENT_BYTES) {
      throw new MalformedError('ERR_OCI_LAYOUT', `${path}: ${size} bytes, at most ${MAX_DOCUMENT_BYTES}`)
    }
    return await readFile(path)
  }

  async #found<T>(promise: Promise<T>, name: string): Promise<T> {
    try {
      return await promise
    } catch (cause) {
      throw new UnavailableError('ERR_OCI_LAYOUT_MISSING', `${this.folder}: no ${name}`, {
        cause,
        hint: 'Name a folder in OCI image layout form: it holds oci-layout, index.json and blobs/.',
      })
    }
  }
}
