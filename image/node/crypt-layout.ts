/** Encrypts and decrypts the layers of an OCI layout into another: manifests and index follow, configurations stay. */
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createWriteStream } from 'node:fs'
import { copyFile, mkdir, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { toHex } from '#protocol/encoding'
import { UnverifiedError } from '#protocol/errors'
import { nodeCrypto } from '#protocol/node/crypto'
import type { Descriptor } from '#protocol/oci/descriptor'
import { computeDigest, type Digest, digestAlgorithm, digestHex } from '#protocol/oci/digest'
import { layerCompression } from '#protocol/oci/media-types'
import { ENCRYPTED, encryptionAnnotations, parseLayerEncryption, plainAnnotations } from '../encryption/annotations.ts'
import { decryptLayer, encryptLayer } from '../encryption/layer-stream.ts'
import { encodePrivateOptions, encodePublicOptions } from '../encryption/options.ts'
import { type KeyUnwrapper, unwrapLayerKey } from '../encryption/unwrap.ts'
import type { ImageManifest } from '../manifest/manifest.ts'
import { nodeLayerCipher } from './layer-cipher.ts'
import { OciLayout } from './layout.ts'
import type { KeyWrapper } from './recipients.ts'

const ENGINES = { cipher: nodeLayerCipher, crypto: nodeCrypto }

export interface CryptLayoutOptions {
  readonly source: string
  /** Made by this; must not exist. */
  readonly target: string
  readonly onLayer?: (layer: { readonly from: Digest; readonly to: Digest; readonly bytes: number }) => void
}

export interface CryptedLayout {
  /** Of the image that index.json of the target names. */
  readonly digest: Digest
  readonly layers: number
}

/** Every file-system layer that is not encrypted yet. Errors: those of `OciLayout` and of the recipients. */
export function encryptLayout(options: CryptLayoutOptions & { readonly wrap: KeyWrapper }): Promise<CryptedLayout> {
  return convert(options, async (layer, layout, target) => {
    // Only file systems: what else lies in manifests, attestations say, is for everybody to read.
    if (layerCompression(layer.mediaType) === undefined) return undefined
    const [key, nonce] = [randomBytes(32), randomBytes(16)]
    const stream = encryptLayer(layout.readBlob(layer.digest), { key, nonce }, ENGINES)
    const file = await target.write(stream.body)
    const { hmac, plainDigest, digest, size } = stream.finish()
    // The blob may have been changed under its name; what was read is what is described from here on.
    requireUnchanged(layer.digest, plainDigest)
    await target.keep(file, digest)
    const wrapped = await options.wrap(encodePrivateOptions({ key, digest: plainDigest, nonce }))
    const annotations = encryptionAnnotations(encodePublicOptions(hmac), wrapped)
    return {
      mediaType: `${layer.mediaType}${ENCRYPTED}`,
      digest,
      size,
      annotations: { ...Object.fromEntries(layer.annotations), ...annotations },
    }
  })
}

/** Every encrypted layer. Errors: those of `OciLayout`, `unwrapLayerKey` and `decryptLayer`. */
export function decryptLayout(
  options: CryptLayoutOptions & { readonly unwrappers: readonly KeyUnwrapper[] },
): Promise<CryptedLayout> {
  return convert(options, async (layer, layout, target) => {
    const what = `layer ${layer.digest}`
    const encryption = parseLayerEncryption(layer, what)
    if (encryption === undefined) return undefined
    const secret = await unwrapLayerKey(encryption, options.unwrappers, what)
    const input = { secret, digest: layer.digest, what }
    // The file gets its name only when the stream has ended, which it does once everything held.
    const file = await target.write(decryptLayer(layout.readBlob(layer.digest), input, ENGINES))
    await target.keep(file, file.digest)
    return {
      mediaType: encryption.mediaType,
      digest: file.digest,
      size: file.size,
      annotations: plainAnnotations(layer.annotations),
    }
  })
}

interface NewDescriptor {
  readonly mediaType: string
  readonly digest: Digest
  readonly size: number
  readonly annotations: Readonly<Record<string, string>>
}

type LayerConversion = (
  layer: Descriptor,
  layout: OciLayout,
  target: LayoutWriter,
) => Promise<NewDescriptor | undefined>

type ManifestConversion = (bytes: Uint8Array, document: ImageManifest) => Promise<Uint8Array>

function requireUnchanged(expected: Digest, actual: Digest): void {
  if (actual === expected) return
  throw new UnverifiedError('ERR_DIGEST_MISMATCH', `layer ${expected}: its content is ${actual}`, {
    hint: 'The layout was damaged. Make it again from a trusted source.',
  })
}

async function convert(options: CryptLayoutOptions, convertLayer: LayerConversion): Promise<CryptedLayout> {
  const layout = new OciLayout(options.source)
  const image = await layout.image()
  const target = await LayoutWriter.create(options.target)
  try {
    const done = { layers: 0 }
    const convertManifest: ManifestConversion = async (bytes, document) => {
      const manifest = JSON.parse(new TextDecoder().decode(bytes))
      await target.copy(layout, document.config)
      for (const [index, layer] of document.layers.entries()) {
        const converted = await convertLayer(layer, layout, target)
        if (converted === undefined) {
          await target.copy(layout, layer)
          continue
        }
        done.layers++
        options.onLayer?.({ from: layer.digest, to: converted.digest, bytes: converted.size })
        const { annotations, ...rest } = converted
        const { annotations: _, ...old } = manifest.layers[index]
        const named = Object.keys(annotations).length === 0 ? {} : { annotations }
        manifest.layers[index] = { ...old, ...rest, ...named }
      }
      return new TextEncoder().encode(JSON.stringify(manifest))
    }
    const top = await convertDocument(layout, image.descriptor, { target, convertManifest })
    await target.finish(top)
    return { digest: top.digest, layers: done.layers }
  } catch (error) {
    await target.discard()
    throw error
  }
}

/** A manifest, or an index and the manifests it names. */
async function convertDocument(
  layout: OciLayout,
  descriptor: Descriptor,
  context: { readonly target: LayoutWriter; readonly convertManifest: ManifestConversion },
): Promise<{ mediaType: string; digest: Digest; size: number }> {
  const { target, convertManifest } = context
  const { bytes, document } = await layout.document(descriptor)
  const { mediaType } = document
  if (document.kind === 'manifest') {
    return { mediaType, ...(await target.blob(await convertManifest(bytes, document))) }
  }
  const index = JSON.parse(new TextDecoder().decode(bytes))
  for (const [position, entry] of document.manifests.entries()) {
    const child = await convertDocument(layout, entry, context)
    index.manifests[position] = { ...index.manifests[position], digest: child.digest, size: child.size }
  }
  return { mediaType, ...(await target.blob(new TextEncoder().encode(JSON.stringify(index)))) }
}

interface WrittenFile {
  readonly path: string
  readonly size: number
  readonly digest: Digest
}

/** A layout that appears under its name only when it is whole. */
class LayoutWriter {
  readonly #target: string
  readonly #folder: string
  #files = 0

  private constructor(target: string) {
    this.#target = target
    this.#folder = `${target}.${process.pid}.new`
  }

  static async create(target: string): Promise<LayoutWriter> {
    const writer = new LayoutWriter(target)
    await mkdir(join(writer.#folder, 'blobs'), { recursive: true })
    return writer
  }

  /** Into a file without a name of its own yet. */
  async write(body: AsyncIterable<Uint8Array>): Promise<WrittenFile> {
    const path = join(this.#folder, `unverified-${this.#files++}`)
    const file = createWriteStream(path, { flags: 'wx', mode: 0o600 })
    const hash = nodeCrypto.createHash('sha256')
    let size = 0
    try {
      for await (const chunk of body) {
        size += chunk.length
        hash.update(chunk)
        if (!file.write(chunk)) await once(file, 'drain')
      }
    } finally {
      file.end()
      await once(file, 'close')
    }
    return { path, size, digest: `sha256:${toHex(hash.digest())}` }
  }

  async keep({ path }: WrittenFile, digest: Digest): Promise<void> {
    await rename(path, await this.#blobPath(digest))
  }

  async copy(layout: OciLayout, descriptor: Descriptor): Promise<void> {
    await layout.checkBlob(descriptor)
    await copyFile(layout.blobPath(descriptor.digest), await this.#blobPath(descriptor.digest))
  }

  async blob(bytes: Uint8Array): Promise<{ digest: Digest; size: number }> {
    const digest = computeDigest(nodeCrypto, bytes)
    await writeFile(await this.#blobPath(digest), bytes)
    return { digest, size: bytes.length }
  }

  async finish(image: object): Promise<void> {
    const mediaType = 'application/vnd.oci.image.index.v1+json'
    const index = { schemaVersion: 2, mediaType, manifests: [image] }
    await writeFile(join(this.#folder, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}')
    await writeFile(join(this.#folder, 'index.json'), JSON.stringify(index))
    await rename(this.#folder, this.#target)
  }

  async discard(): Promise<void> {
    await rm(this.#folder, { recursive: true, force: true })
  }

  async #blobPath(digest: Digest): Promise<string> {
    const folder = join(this.#folder, 'blobs', digestAlgorithm(digest))
    await mkdir(folder, { recursive: true })
    return join(folder, digestHex(digest))
  }
}
