/** Writes a one-image OCI layout from layers of tar entries. */
import { createHash } from 'node:crypto'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { constants, gzipSync, zstdCompressSync } from 'node:zlib'
import { encodeTar, type TarEntry } from './tar.ts'

export interface LayerSource {
  readonly compression: 'gzip' | 'zstd' | 'none'
  readonly entries: readonly TarEntry[]
  /** In place of the entries: a tar that somebody else wrote. */
  readonly tar?: Uint8Array
}

export interface ImageSource {
  /** Base first. */
  readonly layers: readonly LayerSource[]
  /** The `config` member of the image configuration. */
  readonly config: Readonly<Record<string, unknown>>
  /** Instead of the true ones: for tests of those who check them. */
  readonly diffIds?: readonly string[]
}

const SUFFIX = { gzip: '+gzip', zstd: '+zstd', none: '' } as const

/** `folder` is created. Answers with the manifest's digest. */
export function writeImageLayout(folder: string, image: ImageSource): string {
  mkdirSync(join(folder, 'blobs/sha256'), { recursive: true })
  const blob = (mediaType: string, bytes: Uint8Array): { mediaType: string; digest: string; size: number } => {
    const hex = createHash('sha256').update(bytes).digest('hex')
    writeFileSync(join(folder, 'blobs/sha256', hex), bytes)
    return { mediaType, digest: `sha256:${hex}`, size: bytes.byteLength }
  }
  const tars = image.layers.map(({ entries, tar }) => tar ?? encodeTar(entries))
  const layers = image.layers.map(({ compression }, index) => {
    const tar = tars[index] ?? new Uint8Array()
    return blob(`application/vnd.oci.image.layer.v1.tar${SUFFIX[compression]}`, compress(tar, compression))
  })
  const diffIds = image.diffIds ?? tars.map((tar) => `sha256:${createHash('sha256').update(tar).digest('hex')}`)
  const config = blob(
    'application/vnd.oci.image.config.v1+json',
    json({
      created: '1970-01-01T00:00:00Z',
      architecture: 'amd64',
      os: 'linux',
      config: image.config,
      rootfs: { type: 'layers', diff_ids: diffIds },
    }),
  )
  const manifestType = 'application/vnd.oci.image.manifest.v1+json'
  const manifest = blob(manifestType, json({ schemaVersion: 2, mediaType: manifestType, config, layers }))
  const indexType = 'application/vnd.oci.image.index.v1+json'
  writeFileSync(join(folder, 'oci-layout'), json({ imageLayoutVersion: '1.0.0' }))
  writeFileSync(join(folder, 'index.json'), json({ schemaVersion: 2, mediaType: indexType, manifests: [manifest] }))
  return manifest.digest
}

function compress(tar: Uint8Array, compression: LayerSource['compression']): Uint8Array {
  switch (compression) {
    case 'gzip':
      return gzipSync(tar, { level: 9 })
    case 'zstd':
      return zstdCompressSync(tar, { params: { [constants.ZSTD_c_compressionLevel]: 19 } })
    case 'none':
      return tar
    default:
      return compression satisfies never
  }
}

function json(value: unknown): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(value))
}
