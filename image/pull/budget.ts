import { MalformedError } from '#protocol/errors'

/** The tar bytes that all layers of one image may take together. */
export class TarBudget {
  readonly #maxBytes: number
  #usedBytes = 0

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes
  }

  /** Throws `MalformedError` ERR_IMAGE_TOO_LARGE. */
  add(bytes: number): void {
    this.#usedBytes += bytes
    if (this.#usedBytes > this.#maxBytes) {
      throw new MalformedError(
        'ERR_IMAGE_TOO_LARGE',
        `the image's layers take more than ${this.#maxBytes} bytes as tars`,
      )
    }
  }
}
