/** Changes the files of a node, and changes them back. */
import { existsSync, mkdirSync, readFileSync, renameSync, rmdirSync } from 'node:fs'
import { dirname } from 'node:path'
import { type InstallRecord, type InstallStore, type PathState, type RecordEntry, sha256 } from './install-record.ts'
import { isSame, put, removeDraft, stateOf } from './paths.ts'
import { stripEdits } from './toml-edit.ts'

export interface PlannedFile {
  readonly path: string
  readonly content: Uint8Array
  readonly mode: number
  /** The operator's file with our lines in it. */
  readonly edited?: boolean
}

export interface PlannedLink {
  readonly path: string
  readonly target: string
}

export type Planned = PlannedFile | PlannedLink

/** Content of the operator's file as it was or would be without us; undefined: there is none. */
export function operatorsText(path: string): string | undefined {
  return existsSync(path) ? stripEdits(readFileSync(path, 'utf8')) : undefined
}

/** Whether a path differs from what is planned for it. */
export function isChanged(planned: Planned): boolean {
  return !isSame(stateOf(planned.path), afterOf(planned, stateOf(planned.path)))
}

/**
 * Writes the planned files in their order. What an earlier installation left and is not planned any more is taken back.
 * Cut short at any point, it can be repeated, or undone by `takeBack`.
 */
export function apply(store: InstallStore, planned: readonly Planned[]): void {
  const earlier = store.load()
  // Before anything is kept there.
  const ofStore = missingParents(`${store.directory}/record.json`)
  const paths = new Set(planned.map(({ path }) => path))
  const obsolete = earlier?.entries.filter(({ path }) => !paths.has(path)) ?? []
  const known = new Map(earlier?.entries.map((entry) => [entry.path, entry]))
  const entries = planned.map((each) => entryOf(store, each, known.get(each.path)))
  const missing = planned.flatMap(({ path }) => missingParents(path))
  const directories = [...new Set([...(earlier?.directories ?? []), ...missing, ...ofStore])].toSorted()
  const record: InstallRecord = { version: 1, state: 'installing', entries: [...entries, ...obsolete], directories }
  store.save(record)
  for (const entry of obsolete) takeBackOne(store, entry)
  for (const directory of missing.toSorted()) mkdirSync(directory, { recursive: true, mode: 0o755 })
  for (const [index, { path, after }] of entries.entries()) {
    const source = planned[index]
    if (!isSame(stateOf(path), after))
      put(path, after, source !== undefined && 'content' in source ? source.content : Buffer.alloc(0))
  }
  store.save({ ...record, state: 'installed', entries })
}

/** Puts back what was there, last file first. Answers with copies of files of ours that somebody changed meanwhile. */
export function takeBack(store: InstallStore): readonly string[] {
  const record = store.load()
  if (record === undefined) return []
  const saved = record.entries.toReversed().flatMap((entry) => takeBackOne(store, entry))
  removeEmpty(record.directories)
  store.remove()
  // Those that the record itself lay in.
  removeEmpty(record.directories)
  return saved
}

function removeEmpty(directories: readonly string[]): void {
  for (const directory of directories.toReversed()) {
    try {
      rmdirSync(directory)
    } catch {
      // Somebody else uses it by now, or it is gone.
    }
  }
}

function entryOf(store: InstallStore, planned: Planned, known: RecordEntry | undefined): RecordEntry {
  const { path } = planned
  const current = stateOf(path)
  const edited = 'edited' in planned && planned.edited === true
  const isOurs = known !== undefined && (isSame(current, known.after) || isSame(current, known.before))
  const before = isOurs || (known !== undefined && !edited) ? known.before : withoutEdits(store, path, edited)
  return { path, before, after: afterOf(planned, before), edited }
}

/** What the operator would find without us. */
function withoutEdits(store: InstallStore, path: string, edited: boolean): PathState {
  const current = stateOf(path)
  if (current.kind !== 'file') return current
  const content = readFileSync(path)
  const own = edited ? Buffer.from(stripEdits(content.toString())) : content
  // Nothing but our lines: we made it.
  if (own.byteLength === 0 && content.byteLength > 0) return { kind: 'absent' }
  return { ...current, sha256: store.keep(own) }
}

/** An edited file keeps its owner and mode. */
function afterOf(planned: Planned, before: PathState): PathState {
  if ('target' in planned) return { kind: 'link', target: planned.target }
  const own = before.kind === 'file' && planned.edited === true
  const { mode, uid, gid } = own
    ? before
    : { mode: planned.mode, uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 }
  return { kind: 'file', sha256: sha256(planned.content), mode, uid, gid }
}

function takeBackOne(store: InstallStore, { path, before, after, edited }: RecordEntry): readonly string[] {
  removeDraft(path)
  const current = stateOf(path)
  if (isSame(current, before)) return []
  const content = before.kind === 'file' ? store.content(before.sha256) : Buffer.alloc(0)
  if (isSame(current, after) || current.kind === 'absent') {
    // A file that somebody removed meanwhile stays away.
    if (current.kind !== 'absent') put(path, before, content)
    return []
  }
  if (edited && current.kind === 'file') {
    const own = Buffer.from(stripEdits(readFileSync(path, 'utf8')))
    const state = own.byteLength === 0 && before.kind === 'absent' ? before : { ...current, sha256: sha256(own) }
    put(path, state, own)
    return []
  }
  renameSync(path, `${path}.caisson-saved`)
  put(path, before, content)
  return [`${path}.caisson-saved`]
}

function missingParents(path: string): readonly string[] {
  const missing: string[] = []
  for (let directory = dirname(path); !existsSync(directory); directory = dirname(directory)) missing.unshift(directory)
  return missing
}
