/** What lies at a path, and how it is replaced: at once, with its owner and mode, so that a crash leaves one or the other. */
import {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
} from 'node:fs'
import { dirname } from 'node:path'
import { UsageError } from '#protocol/errors'
import { type PathState, sha256, syncDirectory, writeDurably } from './install-record.ts'

/** Of files on their way; no pattern of a configuration folder matches it. */
const DRAFT = '.caisson-new'
const MODE_BITS = 0o7777

/** @throws UsageError ERR_INSTALL_PATH when something else than a file or link lies there */
export function stateOf(path: string): PathState {
  const status = lstatSync(path, { throwIfNoEntry: false })
  if (status === undefined) return { kind: 'absent' }
  if (status.isSymbolicLink()) return { kind: 'link', target: readlinkSync(path) }
  if (!status.isFile()) {
    throw new UsageError('ERR_INSTALL_PATH', `${path} is neither a file nor a link`, {
      hint: 'Move it away, or choose another --prefix',
    })
  }
  return {
    kind: 'file',
    sha256: sha256(readFileSync(path)),
    mode: status.mode & MODE_BITS,
    uid: status.uid,
    gid: status.gid,
  }
}

export function isSame(a: PathState, b: PathState): boolean {
  if (a.kind === 'file' && b.kind === 'file') {
    return a.sha256 === b.sha256 && a.mode === b.mode && a.uid === b.uid && a.gid === b.gid
  }
  if (a.kind === 'link' && b.kind === 'link') return a.target === b.target
  return a.kind === b.kind
}

/** @param content of a file; must have the digest that `state` names */
export function put(path: string, state: PathState, content: Uint8Array): void {
  if (!existsSync(dirname(path))) return
  if (state.kind === 'absent') {
    rmSync(path, { force: true })
  } else {
    rmSync(path + DRAFT, { force: true })
    if (state.kind === 'link') symlinkSync(state.target, path + DRAFT)
    else {
      writeDurably(path + DRAFT, content, 0o600)
      chownSync(path + DRAFT, state.uid, state.gid)
      chmodSync(path + DRAFT, state.mode)
    }
    renameSync(path + DRAFT, path)
  }
  syncDirectory(dirname(path))
}

/** Removes what a crash left of `put`. */
export function removeDraft(path: string): void {
  rmSync(path + DRAFT, { force: true })
}
