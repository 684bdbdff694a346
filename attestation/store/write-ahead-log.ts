/**
 * Brings what SQLite wrote to its write-ahead log to the disk, beside the event loop: one call for all that was committed
 * before it began, however many wait for it.
 */
import { closeSync, fdatasync, fsyncSync, openSync } from 'node:fs'
import { dirname } from 'node:path'
import { UnavailableError } from '#protocol/errors'

export class WriteAheadLog {
  readonly #fd: number
  readonly #syncFile: (fd: number, done: (error: Error | null) => void) => void
  /** Under way: it need not cover what was written after it began. */
  #running: Promise<void> | undefined
  /** Begins when that has ended. */
  #next: Promise<void> | undefined
  #failure: UnavailableError | undefined

  /**
   * @param database the path of the database; its log must be there
   * @param syncFile how a file's content gets to the disk
   */
  constructor(database: string, syncFile: (fd: number, done: (error: Error | null) => void) => void = fdatasync) {
    this.#syncFile = syncFile
    // The name of a new file lasts once its directory was written, too.
    const directory = openSync(dirname(database), 'r')
    fsyncSync(directory)
    closeSync(directory)
    this.#fd = openSync(`${database}-wal`, 'r+')
  }

  /**
   * Resolves when everything that was written before the call is on the disk.
   *
   * After one failure all calls fail: what the system did not write it may have forgotten, and the next attempt would
   * succeed without it.
   *
   * @throws UnavailableError ERR_STORE_FAILED
   */
  async durable(): Promise<void> {
    if (this.#running === undefined) {
      this.#running = this.#sync()
      return await this.#running
    }
    this.#next ??= this.#running.then(
      () => this.#startNext(),
      () => this.#startNext(),
    )
    await this.#next
  }

  /** What failed before, if anything did: then nothing more may be decided on what this store says. */
  get failure(): UnavailableError | undefined {
    return this.#failure
  }

  async close(): Promise<void> {
    await (this.#next ?? this.#running)?.catch(() => {})
    closeSync(this.#fd)
  }

  async #startNext(): Promise<void> {
    this.#next = undefined
    this.#running = this.#sync()
    await this.#running
  }

  async #sync(): Promise<void> {
    try {
      if (this.#failure !== undefined) throw this.#failure
      await new Promise<void>((resolve, reject) => {
        this.#syncFile(this.#fd, (error) => (error === null ? resolve() : reject(error)))
      })
    } catch (cause) {
      this.#failure ??= new UnavailableError(
        'ERR_STORE_FAILED',
        "the verifier's store could not be written to its disk",
        {
          hint: "Check the disk that holds the verifier's store, then start the verifier again.",
          cause,
        },
      )
      throw this.#failure
    } finally {
      if (this.#next === undefined) this.#running = undefined
    }
  }
}
