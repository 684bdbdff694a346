/**
 * TCB_VERSION (AMD 56860 section 2.2): security patch levels, one byte each, whose places depend on the product. They are
 * compared one by one: as a whole number the order of two versions would mean nothing.
 */
import { toHex } from '#protocol/encoding'
import type { ProductLine } from '../product.ts'

export type TcbComponent = 'fmc' | 'boot_loader' | 'tee' | 'snp' | 'microcode'

/** One byte each; only Turin and later have `fmc`. */
export type TcbLevels = { readonly [component in TcbComponent]?: number }

export const TCB_BYTES = 8

type TcbLayout = Readonly<Partial<Record<TcbComponent, number>>>

const BEFORE_TURIN: TcbLayout = { boot_loader: 0, tee: 1, snp: 6, microcode: 7 }
const TURIN: TcbLayout = { fmc: 0, boot_loader: 1, tee: 2, snp: 3, microcode: 7 }

/** Where each component lies. */
export function tcbLayout(product: ProductLine): TcbLayout {
  return product === 'Turin' ? TURIN : BEFORE_TURIN
}

export function readTcb(tcb: Uint8Array, product: ProductLine): TcbLevels {
  return Object.fromEntries(Object.entries(tcbLayout(product)).map(([component, at]) => [component, tcb[at] ?? 0]))
}

/** Is no byte of `low` greater than that of `high`? */
export function tcbAtMost(low: Uint8Array, high: Uint8Array): boolean {
  return low.every((level, at) => level <= (high[at] ?? 0))
}

/** For messages: "boot_loader 4, tee 0, snp 24, microcode 217". */
export function tcbText(tcb: Uint8Array, product: ProductLine | undefined): string {
  if (product === undefined) return toHex(tcb)
  return Object.entries(readTcb(tcb, product))
    .map(([component, level]) => `${component} ${level}`)
    .join(', ')
}
