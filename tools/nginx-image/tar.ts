/**
 * Writes tars (POSIX.1-2001 ustar with pax headers where needed) that depend on their entries and on nothing else: no
 * clock, no owner of this machine, no directory order.
 */
export interface TarEntry {
  /** Relative, without a leading "./"; directories without a trailing slash. */
  readonly path: string
  readonly type: 'file' | 'directory' | 'symlink' | 'hardlink'
  readonly mode: number
  readonly content?: Uint8Array
  /** Of links. */
  readonly target?: string
  readonly uid?: number
  readonly gid?: number
  /** Seconds since 1970. Default 0. */
  readonly mtime?: number
  /** Extended attributes. */
  readonly xattrs?: Readonly<Record<string, string>>
}

const BLOCK = 512
const TYPE_FLAG = { file: '0', hardlink: '1', symlink: '2', directory: '5' } as const

/** In the order given. */
export function encodeTar(entries: readonly TarEntry[]): Uint8Array {
  const parts: Uint8Array[] = []
  for (const entry of entries) {
    const name = entry.type === 'directory' ? `${entry.path}/` : entry.path
    const pax: [string, string][] = Object.entries(entry.xattrs ?? {}).map(([key, value]) => [
      `SCHILY.xattr.${key}`,
      value,
    ])
    if (Buffer.byteLength(name) > 100) pax.push(['path', name])
    if (Buffer.byteLength(entry.target ?? '') > 100) pax.push(['linkpath', entry.target ?? ''])
    if (pax.length > 0) {
      const records = Buffer.from(pax.map(([key, value]) => paxRecord(key, value)).join(''))
      parts.push(header({ name: 'pax', flag: 'x', mode: 0o644, size: records.byteLength }), padded(records))
    }
    const content = entry.type === 'file' ? (entry.content ?? new Uint8Array()) : new Uint8Array()
    const { mode, target = '', uid = 0, gid = 0, mtime = 0 } = entry
    const flag = TYPE_FLAG[entry.type]
    parts.push(header({ name, flag, mode, size: content.byteLength, target, uid, gid, mtime }), padded(content))
  }
  parts.push(new Uint8Array(2 * BLOCK))
  return new Uint8Array(Buffer.concat(parts))
}

function header(fields: {
  name: string
  flag: string
  mode: number
  size: number
  target?: string
  uid?: number
  gid?: number
  mtime?: number
}): Uint8Array {
  const block = Buffer.alloc(BLOCK)
  const octal = (value: number, at: number, length: number): void => {
    block.write(value.toString(8).padStart(length - 1, '0'), at)
  }
  block.write(fields.name, 0, 100)
  octal(fields.mode, 100, 8)
  octal(fields.uid ?? 0, 108, 8)
  octal(fields.gid ?? 0, 116, 8)
  octal(fields.size, 124, 12)
  octal(fields.mtime ?? 0, 136, 12)
  block.write(fields.flag, 156)
  block.write(fields.target ?? '', 157, 100)
  block.write('ustar\x0000', 257, 'latin1')
  // The checksum counts its own field as spaces.
  block.fill(' ', 148, 156)
  const sum = block.reduce((total, byte) => total + byte, 0)
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1')
  return block
}

/** "<length> key=value\n", where the length counts itself. */
function paxRecord(key: string, value: string): string {
  const rest = Buffer.byteLength(` ${key}=${value}\n`)
  let length = rest + `${rest}`.length
  if (`${length}`.length !== `${rest}`.length) length = rest + `${length}`.length
  return `${length} ${key}=${value}\n`
}

function padded(content: Uint8Array): Uint8Array {
  const rest = content.byteLength % BLOCK
  return rest === 0 ? content : Buffer.concat([content, Buffer.alloc(BLOCK - rest)])
}
