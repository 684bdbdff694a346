/**
 * The runtime measurement: what was admitted goes into PCR 15 before it runs, and a second attestation makes the verifier
 * see it. An image is measured once per name in the policy; the order is that of admission.
 */

import { extendSha256Pcr } from '#attestation/tpm/guest/pcrs'
import type { CryptoProvider } from '#protocol/crypto-provider'
import { type AdmittedImage, admittedImageDigest } from '#protocol/tpm-messages'
import type { Tpm } from '../platform/platform.ts'

const RUNTIME_PCR = 15

export interface ImageMeasurement {
  /** Resolves when the verifier has seen the image. False when it had been measured before. */
  admit(image: AdmittedImage): Promise<boolean>
}

/** Platform `none`: nothing to measure with. */
export const noMeasurement: ImageMeasurement = { admit: async () => false }

export class TpmMeasurement implements ImageMeasurement {
  readonly #tpm: Tpm
  readonly #crypto: CryptoProvider
  readonly #attest: (images: readonly AdmittedImage[]) => Promise<unknown>
  readonly #images: AdmittedImage[] = []
  /** How many of `#images` the verifier has seen. */
  #attested = 0
  #last: Promise<unknown> = Promise.resolve()

  constructor(tpm: Tpm, crypto: CryptoProvider, attest: (images: readonly AdmittedImage[]) => Promise<unknown>) {
    this.#tpm = tpm
    this.#crypto = crypto
    this.#attest = attest
  }

  /** One at a time: the list must have the order of the extensions. */
  admit(image: AdmittedImage): Promise<boolean> {
    const turn = this.#last.then(() => this.#admitNow(image))
    this.#last = turn.catch(() => undefined)
    return turn
  }

  async #admitNow(image: AdmittedImage): Promise<boolean> {
    const index = this.#images.findIndex(
      (known) => known.container === image.container && known.manifest === image.manifest,
    )
    if (index >= 0 && index < this.#attested) return false
    if (index < 0) {
      await extendSha256Pcr(this.#tpm, RUNTIME_PCR, admittedImageDigest(this.#crypto, image))
      this.#images.push(image)
    }
    const images = [...this.#images]
    await this.#attest(images)
    this.#attested = images.length
    return true
  }
}
