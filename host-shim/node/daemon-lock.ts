/**
 * One daemon per node, from before it reads the first record until its process ends: two would both end what a relay left,
 * and take the socket from each other. The kernel gives the lock back, however the process ends.
 */
import { closeSync, openSync } from 'node:fs'
import { DatabaseSync } from 'node:sqlite'

/** sqlite3.h, primary result code. */
const SQLITE_BUSY = 5

/** Node has no flock(2); SQLite's lock on a database that nobody writes is one. */
export class DaemonLock implements Disposable {
  readonly #database: DatabaseSync

  private constructor(database: DatabaseSync) {
    this.#database = database
  }

  /** Undefined when another process has it. `path` is a file of its own, made if it is not there. */
  static take(path: string): DaemonLock | undefined {
    make(path)
    const database = new DatabaseSync(path, { timeout: 0 })
    try {
      database.exec('BEGIN EXCLUSIVE')
      return new DaemonLock(database)
    } catch (error) {
      database.close()
      if (error instanceof Error && 'errcode' in error && error.errcode === SQLITE_BUSY) return undefined
      throw error
    }
  }

  [Symbol.dispose](): void {
    if (this.#database.isOpen) this.#database.close()
  }
}

/**
 * Opens nothing that is there: whoever closes any descriptor of a file gives back all locks that its process has on it
 * (fcntl(2)), and with them the one of this daemon.
 */
function make(path: string): void {
  try {
    closeSync(openSync(path, 'ax', 0o600))
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error
  }
}
