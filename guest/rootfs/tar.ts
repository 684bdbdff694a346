/**
 * A tar archive (POSIX.1-2017 pax, ustar format) that depends on nothing but its entries: owner 0, time 0, sorted by path.
 * mkfs.erofs reads it, so the image does not depend on the build machine's file system, umask or user either.
 */
import { MalformedError } from '#protocol/errors'

export type TarEntry =
  | { readonly kind: 'directory'; readonly path: string; readonly mode: number }
  | { readonly kind: 'link'; readonly path: string; readonly target: string }
  | { readonly kind: 'file'; readonly path: string; readonly mode: number; readonly content: Uint8Array }

const BLOCK = 512
const TYPE = { file: '0', link: '2', directory: '5' } as const

/** Chunks of the archive in order. Throws ERR_ROOTFS_ENTRY for a path it cannot hold, or one given twice. */
export function* encodeTar(entries: readonly TarEntry[]): Generator<Uint8Array> {
  const sorted = entries.toSorted((a, b) => (a.path < b.path ? -1 : a.path > b.path ? 1 : 0))
  for (const [index, entry] of sorted.entries()) {
    if (entry.path === sorted[index + 1]?.path) throw refused(entry.path, 'appears twice')
    yield encodeHeader(entry)
    if (entry.kind !== 'file') continue
    yield entry.content
    const rest = entry.content.length % BLOCK
    if (rest > 0) yield new Uint8Array(BLOCK - rest)
  }
  yield new Uint8Array(2 * BLOCK)
}

function encodeHeader(entry: TarEntry): Uint8Array {
  const header = new Uint8Array(BLOCK)
  const put = (text: string, offset: number, length: number) => {
    const bytes = new TextEncoder().encode(text)
    if (bytes.length > length) throw refused(entry.path, `has a field longer than ${length} bytes`)
    header.set(bytes, offset)
  }
  const octal = (value: number, digits: number) => value.toString(8).padStart(digits, '0')
  put(entry.path, 0, 100)
  put(octal(entry.kind === 'link' ? 0o777 : entry.mode, 7), 100, 8)
  put(octal(0, 7), 108, 8)
  put(octal(0, 7), 116, 8)
  put(octal(entry.kind === 'file' ? entry.content.length : 0, 11), 124, 12)
  put(octal(0, 11), 136, 12)
  put(TYPE[entry.kind], 156, 1)
  put(entry.kind === 'link' ? entry.target : '', 157, 100)
  put('ustar\u000000', 257, 8)
  // The checksum counts its own field as spaces.
  header.fill(0x20, 148, 156)
  const sum = header.reduce((total, byte) => total + byte, 0)
  put(`${octal(sum, 6)}\0 `, 148, 8)
  return header
}

const refused = (path: string, why: string) =>
  new MalformedError('ERR_ROOTFS_ENTRY', `${JSON.stringify(path)} ${why}, which the root file system cannot have`)
