/** `Tpm` on the kernel's resource-managing device, opened once: what this open creates is flushed if the agent dies. */
import { type FileHandle, open } from 'node:fs/promises'
import { errorText, UnavailableError } from '#protocol/errors'
import type { Tpm } from '../platform.ts'
import { nodeFiles } from './files.ts'

const DEVICE = '/dev/tpmrm0'
const EVENT_LOG = '/sys/kernel/security/tpm0/binary_bios_measurements'
const MAX_EVENT_LOG_BYTES = 1024 * 1024
const MAX_RESPONSE_BYTES = 4096

export class NodeTpm implements Tpm {
  #device: Promise<FileHandle> | undefined
  #last: Promise<unknown> = Promise.resolve()

  submit(command: Uint8Array): Promise<Uint8Array> {
    // One write and one read belong together; the device answers EBUSY to a write between them.
    const answer = this.#last.then(() => this.#exchange(command))
    this.#last = answer.catch(() => undefined)
    return answer
  }

  eventLog(): Promise<Uint8Array> {
    return nodeFiles.read(EVENT_LOG, MAX_EVENT_LOG_BYTES)
  }

  async #exchange(command: Uint8Array): Promise<Uint8Array> {
    try {
      this.#device ??= open(DEVICE, 'r+')
      const device = await this.#device
      await device.write(command, 0, command.byteLength, null)
      const { bytesRead, buffer } = await device.read(new Uint8Array(MAX_RESPONSE_BYTES), 0, MAX_RESPONSE_BYTES, null)
      return buffer.slice(0, bytesRead)
    } catch (cause) {
      throw new UnavailableError('ERR_TPM_DEVICE', `the TPM does not answer: ${errorText(cause)}`, {
        hint: 'The host ended the TPM of this guest. Start the guest anew.',
        cause,
      })
    }
  }
}
