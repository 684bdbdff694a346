/** The images that pulls are measured with: real files of this machine, so that compression is what it is in images. */
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { constants, gzipSync, zstdCompressSync } from 'node:zlib'

export type Shape = 'big' | 'layers' | 'files'
export type Format = 'gzip' | 'zstd'

export interface BenchImage {
  readonly shape: Shape
  readonly format: Format
  /** OCI layout. */
  readonly layout: string
  readonly compressedBytes: number
  readonly tarBytes: number
}

const MB = 1_000_000
/** Bytes of files per layer. */
const LAYERS: Readonly<Record<Exclude<Shape, 'files'>, readonly number[]>> = {
  big: [300 * MB],
  layers: Array.from({ length: 40 }, () => 5 * MB),
}
const SMALL_FILES = 100_000
const SMALL_BYTES = 1000

/** Under `folder`, made once and found again. */
export function benchImage(folder: string, shape: Shape, format: Format): BenchImage {
  const layout = join(folder, `${shape}-${format}`)
  const record = join(layout, 'sizes.json')
  if (!existsSync(record)) {
    rmSync(layout, { recursive: true, force: true })
    mkdirSync(join(layout, 'blobs/sha256'), { recursive: true })
    const tars = tarsOf(folder, shape)
    const compressed = tars.map((tar) => compress(tar, format))
    writeLayout(layout, tars, compressed, format)
    const bytes = (all: readonly Uint8Array[]) => all.reduce((sum, { byteLength }) => sum + byteLength, 0)
    writeFileSync(record, JSON.stringify({ tarBytes: bytes(tars), compressedBytes: bytes(compressed) }))
  }
  return { shape, format, layout, ...JSON.parse(readFileSync(record, 'utf8')) }
}

function tarsOf(folder: string, shape: Shape): Uint8Array[] {
  const scratch = join(folder, 'scratch')
  rmSync(scratch, { recursive: true, force: true })
  mkdirSync(scratch, { recursive: true })
  try {
    if (shape === 'files') return [smallFiles(scratch)]
    const files = realFiles()
    return LAYERS[shape].map((wanted) => {
      const names: string[] = []
      for (let bytes = 0; bytes < wanted; ) {
        const next = files.next()
        if (next.done === true) break
        names.push(next.value.path)
        bytes += next.value.bytes
      }
      return tar(scratch, '/', names)
    })
  } finally {
    rmSync(scratch, { recursive: true, force: true })
  }
}

/** Regular files below /usr, sorted, none of which is most of a layer. */
function* realFiles(): Generator<{ path: string; bytes: number }> {
  const open = ['usr/bin', 'usr/lib', 'usr/share']
  for (let folder = open.shift(); folder !== undefined; folder = open.shift()) {
    for (const entry of readdirSync(`/${folder}`, { withFileTypes: true }).toSorted((a, b) =>
      a.name < b.name ? -1 : 1,
    )) {
      const path = `${folder}/${entry.name}`
      if (entry.isDirectory()) open.push(path)
      if (!entry.isFile()) continue
      const { size } = statSync(`/${path}`)
      if (size < 2 * MB) yield { path, bytes: size }
    }
  }
}

function smallFiles(scratch: string): Uint8Array {
  const pool = Buffer.concat([...poolParts(SMALL_FILES * SMALL_BYTES)])
  const root = join(scratch, 'files')
  for (let number = 0; number < SMALL_FILES; number++) {
    const folder = join(root, `${Math.floor(number / 1000)}`, `${Math.floor(number / 50) % 20}`)
    if (number % 50 === 0) mkdirSync(folder, { recursive: true })
    const at = number * SMALL_BYTES
    writeFileSync(join(folder, `file-${number}`), pool.subarray(at, at + SMALL_BYTES))
  }
  return tar(scratch, scratch, ['files'])
}

function* poolParts(wanted: number): Generator<Buffer> {
  let bytes = 0
  for (const { path } of realFiles()) {
    if (bytes >= wanted) return
    const content = readFileSync(`/${path}`)
    bytes += content.byteLength
    yield content
  }
}

function tar(scratch: string, root: string, names: readonly string[]): Uint8Array {
  const list = join(scratch, 'names')
  const path = join(scratch, 'layer.tar')
  writeFileSync(list, names.join('\n'))
  execFileSync('tar', ['--owner=0', '--group=0', '--sort=name', '-C', root, '-T', list, '-cf', path])
  return readFileSync(path)
}

/** As docker and buildkit do: gzip -6, zstd -3. */
function compress(bytes: Uint8Array, format: Format): Uint8Array {
  return format === 'gzip'
    ? gzipSync(bytes, { level: 6 })
    : zstdCompressSync(bytes, { params: { [constants.ZSTD_c_compressionLevel]: 3 } })
}

function writeLayout(
  layout: string,
  tars: readonly Uint8Array[],
  compressed: readonly Uint8Array[],
  format: Format,
): void {
  const hex = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex')
  const blob = (mediaType: string, bytes: Uint8Array) => {
    writeFileSync(join(layout, 'blobs/sha256', hex(bytes)), bytes)
    return { mediaType, digest: `sha256:${hex(bytes)}`, size: bytes.byteLength }
  }
  const json = (value: unknown) => new TextEncoder().encode(JSON.stringify(value))
  const layers = compressed.map((bytes) => blob(`application/vnd.oci.image.layer.v1.tar+${format}`, bytes))
  const diffIds = tars.map((bytes) => `sha256:${hex(bytes)}`)
  const config = { architecture: 'amd64', os: 'linux', config: {}, rootfs: { type: 'layers', diff_ids: diffIds } }
  const mediaType = 'application/vnd.oci.image.manifest.v1+json'
  const configBlob = blob('application/vnd.oci.image.config.v1+json', json(config))
  const manifest = blob(mediaType, json({ schemaVersion: 2, mediaType, config: configBlob, layers }))
  const index = { schemaVersion: 2, mediaType: 'application/vnd.oci.image.index.v1+json', manifests: [manifest] }
  writeFileSync(join(layout, 'oci-layout'), json({ imageLayoutVersion: '1.0.0' }))
  writeFileSync(join(layout, 'index.json'), json(index))
}
