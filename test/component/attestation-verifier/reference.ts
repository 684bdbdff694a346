/** Reference values of the boots that these tests play, as `caisson measure` would have written them. */
import { encodeReferenceValues } from '#attestation/measure/reference-values'
import { toHex } from '#protocol/encoding'
import { BOOT_EVENTS, pcrAfter, sha256 } from './software-tpm.ts'

export function referenceFor(
  id: string,
  boot: { readonly initdata: Uint8Array; readonly events?: typeof BOOT_EVENTS },
): string {
  const events = boot.events ?? BOOT_EVENTS
  const pcrs: Record<number, string> = { 8: pcrAfter(sha256(boot.initdata)) }
  for (const { pcr, data } of events) pcrs[pcr] = pcrAfter(sha256(data))
  return encodeReferenceValues({
    version: 1,
    platform: 'tpm',
    id,
    pcrs: { sha256: pcrs },
    events: events.map(({ pcr, data }) => ({
      pcr,
      type: 'EV_EVENT_TAG',
      description: data,
      digest: toHex(sha256(data)),
    })),
    artefacts: {
      firmware: toHex(sha256('firmware')),
      kernel: toHex(sha256('kernel')),
      initdata: toHex(sha256(boot.initdata)),
      cmdline: 'command line',
      vcpus: 1,
    },
  })
}
