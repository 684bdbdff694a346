/** Where AMD hands out what a verdict needs: addresses of its key distribution service (AMD 57230, chapter 4). Nothing is fetched here. */
import { toHex } from '#protocol/encoding'
import type { SnpReport } from './parse/report.ts'
import { readTcb, type TcbComponent } from './parse/tcb.ts'
import type { ProductLine } from './product.ts'
import { isChipMasked } from './verify/vek-binding.ts'
import type { VekKind } from './verify/vek-chain.ts'

const SERVICE = 'https://kdsintf.amd.com'
const TURIN_CHIP_BYTES = 8

/** Query parameters, in the order of AMD's examples. */
const PARAMETERS: readonly (readonly [parameter: string, component: TcbComponent])[] = [
  ['fmcSPL', 'fmc'],
  ['blSPL', 'boot_loader'],
  ['teeSPL', 'tee'],
  ['snpSPL', 'snp'],
  ['ucodeSPL', 'microcode'],
]

/**
 * Address of the certificate of the key that signed a report. Undefined for keys that a cloud provider leases (their
 * certificates come from the provider), and when the chip is masked.
 */
export function vcekAddress(report: SnpReport, product: ProductLine): string | undefined {
  if (report.signingKey !== 'vcek' || isChipMasked(report)) return undefined
  const chip = product === 'Turin' ? report.chipId.subarray(0, TURIN_CHIP_BYTES) : report.chipId
  const levels = readTcb(report.reportedTcb, product)
  const query = PARAMETERS.flatMap(([parameter, component]) => {
    const level = levels[component]
    return level === undefined ? [] : [`${parameter}=${String(level).padStart(2, '0')}`]
  })
  return `${SERVICE}/vcek/v1/${product}/${toHex(chip)}?${query.join('&')}`
}

/** Address of the revocation list of a product's root. */
export function crlAddress(kind: VekKind, product: ProductLine): string {
  return `${SERVICE}/${kind}/v1/${product}/crl`
}
