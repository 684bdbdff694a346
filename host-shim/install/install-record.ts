/**
 * What an installation changed and what was there before: written before anything is changed, so that an installation
 * that was cut short can be repeated or taken back. Earlier contents lie beside it, under their digests.
 */
import { createHash } from 'node:crypto'
import { closeSync, fsyncSync, mkdirSync, openSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { MalformedError } from '#protocol/errors'

/** What lies at a path. Contents are kept under their SHA-256, lower-case hex. */
export type PathState =
  | { readonly kind: 'absent' }
  | { readonly kind: 'link'; readonly target: string }
  | {
      readonly kind: 'file'
      readonly sha256: string
      readonly mode: number
      readonly uid: number
      readonly gid: number
    }

export interface RecordEntry {
  readonly path: string
  readonly before: PathState
  readonly after: PathState
  /** The operator's own file with lines of ours in it. */
  readonly edited: boolean
}

export interface InstallRecord {
  readonly version: 1
  readonly state: 'installing' | 'installed'
  /** In the order in which they are written. */
  readonly entries: readonly RecordEntry[]
  /** Made for them, parents first. */
  readonly directories: readonly string[]
}

const MAX_RECORD_BYTES = 1024 * 1024
const MODE_BITS = 0o7777

export class InstallStore {
  readonly directory: string

  constructor(directory: string) {
    this.directory = directory
  }

  /** Undefined: nothing is installed. @throws MalformedError ERR_INSTALL_RECORD */
  load(): InstallRecord | undefined {
    const text = readOr(this.#record, undefined)
    return text === undefined ? undefined : parseInstallRecord(text.toString())
  }

  save(record: InstallRecord): void {
    this.#write(this.#record, JSON.stringify(record, null, 1))
  }

  /** Keeps a content, whose digest it answers with. */
  keep(content: Uint8Array): string {
    const digest = sha256(content)
    if (readOr(this.#content(digest), undefined) === undefined) this.#write(this.#content(digest), content)
    return digest
  }

  /** @throws MalformedError ERR_INSTALL_RECORD */
  content(digest: string): Buffer {
    const content = readOr(this.#content(digest), undefined)
    if (content === undefined || sha256(content) !== digest) throw damaged(`content ${digest} is missing or changed`)
    return content
  }

  /** The record goes first: without it the rest means nothing. */
  remove(): void {
    rmSync(this.#record, { force: true })
    rmSync(this.directory, { recursive: true, force: true })
  }

  get #record(): string {
    return join(this.directory, 'record.json')
  }

  #content(digest: string): string {
    return join(this.directory, 'before', digest)
  }

  #write(path: string, content: string | Uint8Array): void {
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 })
    writeDurably(`${path}.new`, content, 0o600)
    renameSync(`${path}.new`, path)
    syncDirectory(dirname(path))
  }
}

/** @throws MalformedError ERR_INSTALL_RECORD */
export function parseInstallRecord(text: string): InstallRecord {
  if (text.length > MAX_RECORD_BYTES) throw damaged(`it is larger than ${MAX_RECORD_BYTES} bytes`)
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (cause) {
    throw damaged('it is no JSON', cause)
  }
  const { version, state, entries, directories } = members(value)
  if (version !== 1) throw damaged(`its version is ${JSON.stringify(version)}, known is 1`)
  if (state !== 'installing' && state !== 'installed') throw damaged('its state is unknown')
  if (!Array.isArray(entries) || !Array.isArray(directories)) throw damaged('its lists are missing')
  return { version, state, entries: entries.map(entryOf), directories: directories.map(pathOf) }
}

function entryOf(value: unknown): RecordEntry {
  const { path, before, after, edited } = members(value)
  if (typeof edited !== 'boolean') throw damaged('an entry is incomplete')
  return { path: pathOf(path), before: stateOf(before), after: stateOf(after), edited }
}

function stateOf(value: unknown): PathState {
  const { kind, target, sha256: digest, mode, uid, gid } = members(value)
  if (kind === 'absent') return { kind }
  if (kind === 'link' && typeof target === 'string' && target !== '') return { kind, target }
  if (
    kind === 'file' &&
    typeof digest === 'string' &&
    /^[0-9a-f]{64}$/.test(digest) &&
    isNumber(mode, MODE_BITS) &&
    isNumber(uid, 0xffff_fffe) &&
    isNumber(gid, 0xffff_fffe)
  ) {
    return { kind, sha256: digest, mode, uid, gid }
  }
  throw damaged('an entry says not what lies at its path')
}

function pathOf(value: unknown): string {
  if (typeof value !== 'string' || !value.startsWith('/') || value.includes('\0') || value.split('/').includes('..')) {
    throw damaged(`${JSON.stringify(value)} is no absolute path`)
  }
  return value
}

function isNumber(value: unknown, max: number): value is number {
  return typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= max
}

function members(value: unknown): Readonly<Record<string, unknown>> {
  if (typeof value !== 'object' || value === null) throw damaged('a part of it is no object')
  return value as Record<string, unknown>
}

/** The bytes are on the disk when this returns; the name is once its directory is synchronised. */
export function writeDurably(path: string, content: string | Uint8Array, mode: number): void {
  writeFileSync(path, content, { mode, flush: true })
}

export function syncDirectory(path: string): void {
  const fd = openSync(path, 'r')
  try {
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
}

export function sha256(content: Uint8Array): string {
  return createHash('sha256').update(content).digest('hex')
}

function readOr<T>(path: string, fallback: T): Buffer | T {
  try {
    return readFileSync(path)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return fallback
    throw error
  }
}

function damaged(why: string, cause?: unknown): MalformedError {
  return new MalformedError('ERR_INSTALL_RECORD', `the record of the installation is damaged: ${why}`, {
    hint: 'Look at /var/lib/caisson/install: its folder "before" holds what was there. Remove our lines by hand, then the folder',
    ...(cause === undefined ? {} : { cause }),
  })
}
