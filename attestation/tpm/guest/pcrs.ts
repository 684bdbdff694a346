/** Reading any number of PCRs as one consistent set, and extending one. */
import { UnavailableError } from '#protocol/errors'
import type { BankSelection } from '../parse/pcr-selection.ts'
import { extendPcr, readSomePcrs } from './commands.ts'
import type { TpmDevice } from './device.ts'

const PCRS_PER_READ = 8
const MAX_ATTEMPTS = 4

/**
 * All selected PCRs as they were at one moment: no extend happened in between.
 * Throws `UnavailableError` ERR_TPM_BANK when the bank is not active, ERR_TPM_PCRS_MOVING when PCRs kept changing.
 */
export async function readPcrs(device: TpmDevice, selection: BankSelection): Promise<Map<number, Uint8Array>> {
  for (let attempt = 0; attempt < MAX_ATTEMPTS; attempt++) {
    const pcrs = new Map<number, Uint8Array>()
    const counters = new Set<number>()
    for (let start = 0; start < selection.pcrs.length; start += PCRS_PER_READ) {
      const wanted = selection.pcrs.slice(start, start + PCRS_PER_READ)
      const part = await readSomePcrs(device, { bank: selection.bank, pcrs: wanted })
      counters.add(part.updateCounter)
      for (const pcr of wanted) pcrs.set(pcr, served(part.pcrs, pcr, selection))
    }
    if (counters.size <= 1) return pcrs
  }
  throw new UnavailableError('ERR_TPM_PCRS_MOVING', 'PCRs changed during each attempt to read them')
}

/** Extends a PCR of the SHA-256 bank. Throws as `runCommand`. */
export async function extendSha256Pcr(device: TpmDevice, pcr: number, digest: Uint8Array): Promise<void> {
  if (digest.length !== 32) throw new RangeError(`digest of ${digest.length} bytes`)
  await extendPcr(device, pcr, { bank: 'sha256', digest })
}

/** TPMs answer reads of a bank they do not have with nothing, and no error. */
function served(part: ReadonlyMap<number, Uint8Array>, pcr: number, selection: BankSelection): Uint8Array {
  const value = part.get(pcr)
  if (value !== undefined) return value
  throw new UnavailableError('ERR_TPM_BANK', `the TPM has no PCR ${pcr} in its ${selection.bank} bank`, {
    hint: 'Activate the SHA-256 bank when the TPM is set up.',
  })
}
