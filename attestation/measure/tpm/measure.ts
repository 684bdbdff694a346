/** A registrable document from the artefacts of one guest: prediction, digests of what it was computed from, an id. */
import { createHash } from 'node:crypto'
import { referenceValues, type TpmReferenceValues } from '../reference-values.ts'
import { type BootArtefacts, predictPcrs } from './predict-pcrs.ts'

/**
 * The id follows from the measured values, so the same artefacts are registered once and different ones never collide.
 * Throws what `predictPcrs` throws.
 */
export function measureTpmGuest(artefacts: BootArtefacts): TpmReferenceValues {
  const prediction = predictPcrs(artefacts)
  const values = Object.entries(prediction.sha256).map(([pcr, value]) => `${pcr}:${value}`)
  return referenceValues(`tpm-${sha256(values.join(' ')).slice(0, 16)}`, prediction, {
    firmware: sha256(artefacts.firmware),
    kernel: sha256(artefacts.kernel),
    initdata: sha256(artefacts.initdata),
    cmdline: artefacts.cmdline,
    vcpus: artefacts.vcpus,
  })
}

function sha256(input: Uint8Array | string): string {
  return createHash('sha256').update(input).digest('hex')
}
