/**
 * `LayerPart` in two files: the bytes as they came, and a journal with a line per piece, its length and SHA-256. A piece
 * without a line, or other than its line says, does not count, and nothing behind it does.
 */
import { createHash } from 'node:crypto'
import { type FileHandle, open, rm } from 'node:fs/promises'
import type { LayerPart } from '../layer/store.ts'

const MAX_PIECE_BYTES = 4 * 1024 * 1024
/** "1048576 " and 64 digits and the end of the line; a blob of 16 GiB has 16384 lines. */
const MAX_JOURNAL_BYTES = 8 * 1024 * 1024
const LINE = /^([1-9][0-9]{0,7}) ([0-9a-f]{64})$/

export class FolderPart implements LayerPart {
  readonly #path: string
  readonly #journalPath: string
  readonly #maxBytes: number
  #files: { readonly data: FileHandle; readonly journal: FileHandle } | undefined
  #bytes = 0
  #journalBytes = 0

  /** @param path of the bytes; the journal stands beside it. @param maxBytes of the blob */
  constructor(path: string, maxBytes: number) {
    this.#path = path
    this.#journalPath = `${path}.pieces`
    this.#maxBytes = maxBytes
  }

  async *read(): AsyncGenerator<Uint8Array> {
    const { data, journal } = await this.#opened()
    const { size } = await journal.stat()
    const text = Buffer.alloc(Math.min(size, MAX_JOURNAL_BYTES))
    await journal.read(text, 0, text.byteLength, 0)
    for (const line of text.toString('latin1').split('\n')) {
      const [, length = '', digest = ''] = LINE.exec(line) ?? []
      const piece = Buffer.alloc(Math.min(Number(length), MAX_PIECE_BYTES))
      if (piece.byteLength === 0 || this.#bytes + piece.byteLength > this.#maxBytes) break
      const { bytesRead } = await data.read(piece, 0, piece.byteLength, this.#bytes)
      if (bytesRead !== piece.byteLength || sha256(piece) !== digest) break
      this.#bytes += piece.byteLength
      this.#journalBytes += line.length + 1
      yield piece
    }
    await data.truncate(this.#bytes)
    await journal.truncate(this.#journalBytes)
  }

  async append(bytes: Uint8Array): Promise<void> {
    const { data, journal } = await this.#opened()
    await data.write(bytes, 0, bytes.byteLength, this.#bytes)
    const line = Buffer.from(`${bytes.byteLength} ${sha256(bytes)}\n`)
    await journal.write(line, 0, line.byteLength, this.#journalBytes)
    this.#bytes += bytes.byteLength
    this.#journalBytes += line.byteLength
  }

  async restart(): Promise<void> {
    const { data, journal } = await this.#opened()
    await journal.truncate(0)
    await data.truncate(0)
    this.#bytes = 0
    this.#journalBytes = 0
  }

  async close(): Promise<void> {
    const files = this.#files
    this.#files = undefined
    await files?.data.close()
    await files?.journal.close()
  }

  async remove(): Promise<void> {
    await this.close()
    await Promise.all([rm(this.#journalPath, { force: true }), rm(this.#path, { force: true })])
  }

  async #opened(): Promise<{ data: FileHandle; journal: FileHandle }> {
    this.#files ??= { data: await openOrCreate(this.#path), journal: await openOrCreate(this.#journalPath) }
    return this.#files
  }
}

/** "a+" would append wherever one writes. */
async function openOrCreate(path: string): Promise<FileHandle> {
  try {
    return await open(path, 'r+')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    return await open(path, 'wx+', 0o600)
  }
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}
