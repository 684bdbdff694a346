/** AMD's key distribution service (AMD 57230, "VCEK certificate and KDS interface specification"). */
import { fromHex } from '#protocol/encoding'
import type { Claims } from '../verdict.ts'
import type { CollateralRequest, Endpoints } from './fetch-collateral.ts'

const PRODUCTS: readonly string[] = ['Milan', 'Genoa', 'Turin']
/** Reports of version 2 do not name their product; there are only these. */
const BEFORE_TURIN: readonly string[] = ['Milan', 'Genoa']
const CHIP_ID_BYTES = 64
/** Turin's hardware identity is the first 8 bytes of the chip id. */
const TURIN_HWID_BYTES = 8
const TCB_BYTES = 8

/** Bytes of a TCB version by parameter of the address; section 3.2. */
const PLACES = { blSPL: 0, teeSPL: 1, snpSPL: 6, ucodeSPL: 7 } as const
const TURIN_PLACES = { fmcSPL: 0, blSPL: 1, teeSPL: 2, snpSPL: 3, ucodeSPL: 7 } as const

/** Chain and revocation list of the product, and the key's certificate where the service has it. None for other evidence. */
export function kdsRequests(claims: Claims, { amdKds }: Endpoints): CollateralRequest[] {
  const { product, signing_key: signingKey } = claims
  if (signingKey !== 'vcek' && signingKey !== 'vlek') return []
  const known = PRODUCTS.find((name) => name === product)
  return (known === undefined ? BEFORE_TURIN : [known]).flatMap((name) => {
    const base = `${amdKds}/${signingKey}/v1/${name}`
    const fixed = ['cert_chain', 'crl'].map((path) => ({ path, chosen: false }))
    // A VLEK's certificate is given to the cloud provider alone.
    const own = signingKey === 'vcek' ? vcekPath(claims, name) : undefined
    const paths = [...fixed, ...(own === undefined ? [] : [{ path: own, chosen: true }])]
    return paths.map(({ path, chosen }) => ({ url: `${base}/${path}`, chainHeaders: [], chosen }))
  })
}

/** Undefined when the chip is masked. */
function vcekPath({ chip_id: chipId, tcb }: Claims, product: string): string | undefined {
  const value = typeof tcb === 'object' && tcb !== null && 'value' in tcb ? tcb.value : undefined
  if (!isHex(chipId, CHIP_ID_BYTES) || !isHex(value, TCB_BYTES)) return undefined
  const turin = product === 'Turin'
  const bytes = fromHex(value, 'tcb')
  const levels = Object.entries(turin ? TURIN_PLACES : PLACES).map(([name, place]) => `${name}=${bytes[place] ?? 0}`)
  return `${turin ? chipId.slice(0, 2 * TURIN_HWID_BYTES) : chipId}?${levels.join('&')}`
}

function isHex(value: unknown, bytes: number): value is string {
  return typeof value === 'string' && value.length === 2 * bytes && /^[0-9a-f]*$/.test(value)
}
