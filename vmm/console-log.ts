/**
 * Reads a VM's serial console. The guest may write anything, for ever: memory and the log file are bounded, control
 * characters never reach a terminal, and only lines of the form `caisson: <code>` mean something.
 */
import { createWriteStream, type WriteStream } from 'node:fs'
import type { ConsoleLog } from './types.ts'

const MAX_FILE_BYTES = 1024 * 1024
const MAX_LINE_CHARS = 256
const TAIL_LINES = 40
const MAX_CODES = 256
const CODE_LINE = /^caisson: ([a-z0-9][a-z0-9-]{0,47})$/
/** Where in a terminal escape sequence (ECMA-48 5.4: ESC [ parameters final) the reader is. */
type Escape = 'none' | 'introduced' | 'parameters'

export class ConsoleReader implements ConsoleLog {
  readonly #codes: string[] = []
  readonly #lines: string[] = []
  readonly #listeners = new Set<() => void>()
  readonly #file: WriteStream | undefined
  #fileBytes = 0
  #line = ''
  #escape: Escape = 'none'
  #spoke = false

  /** @param path file that receives the first MiB as it came; none when undefined */
  constructor(path: string | undefined) {
    if (path === undefined) return
    this.#file = createWriteStream(path, { mode: 0o600 })
    // A full disk must not end the VM; the log is a convenience.
    this.#file.on('error', () => undefined)
  }

  get codes(): readonly string[] {
    return this.#codes
  }

  get spoke(): boolean {
    return this.#spoke
  }

  tail(): string {
    return [...this.#lines, this.#line].filter((line) => line !== '').join('\n')
  }

  onProgress(listener: () => void): void {
    this.#listeners.add(listener)
  }

  push(bytes: Uint8Array): void {
    this.#write(bytes)
    this.#spoke ||= bytes.byteLength > 0
    for (const byte of bytes) this.#take(byte)
    for (const listener of this.#listeners) listener()
  }

  close(): void {
    this.#file?.end()
  }

  #write(bytes: Uint8Array): void {
    const room = MAX_FILE_BYTES - this.#fileBytes
    if (this.#file === undefined || room <= 0) return
    // A copy: the stream keeps the chunk, the caller may reuse it.
    this.#file.write(new Uint8Array(bytes.subarray(0, room)))
    this.#fileBytes += Math.min(bytes.byteLength, room)
  }

  /** Firmware clears the screen in front of our first line, so escape sequences are taken out, not only made harmless. */
  #take(byte: number): void {
    const isFinal = byte >= 0x40 && byte < 0x7f
    if (byte === 0x1b) this.#escape = 'introduced'
    else if (this.#escape === 'introduced') this.#escape = byte === 0x5b ? 'parameters' : 'none'
    else if (this.#escape === 'parameters' && byte >= 0x20) this.#escape = isFinal ? 'none' : 'parameters'
    else if (byte === 0x0a) this.#endLine()
    else if (byte >= 0x20 && byte < 0x7f && this.#line.length < MAX_LINE_CHARS) this.#line += String.fromCharCode(byte)
  }

  #endLine(): void {
    const line = this.#line
    this.#line = ''
    this.#escape = 'none'
    const code = CODE_LINE.exec(line)?.[1]
    if (code !== undefined && this.#codes.length < MAX_CODES) this.#codes.push(code)
    this.#lines.push(line)
    if (this.#lines.length > TAIL_LINES) this.#lines.shift()
  }
}
