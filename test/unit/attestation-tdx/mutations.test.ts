/** Whatever is changed in good evidence or good collateral, the verdict is never affirming. */
import test from 'ava'
import type { CollateralFile } from '#attestation/evidence/collateral'
import { CaissonError } from '#protocol/errors'
import { collateralFiles, judge, quote } from '../../fixtures/tdx/platform.ts'

const affirmed = (evidence: Uint8Array, collateral: readonly CollateralFile[]): boolean => {
  try {
    return judge({ evidence, collateral }).verdict === 'affirming'
  } catch (error) {
    if (error instanceof CaissonError) return false
    throw error
  }
}

/** Without the list of a CA that issued nothing here. */
const collateral = collateralFiles({ files: { 'processor.crl': undefined } })
const quoteOnce = quote()

/** Odd, so that the bits change along with the bytes; a field of four bytes is met by each. */
const STEP = 3

for (const [name, good, step] of [
  ['version 4', quoteOnce, 1],
  ['version 5, TDX 1.5', quote({ version: 5, body: 'td-1.5' }), STEP],
] as const) {
  test(`a quote of ${name} changed in a byte of header, body, signatures or reports is not affirmed`, (t) => {
    t.true(affirmed(good, collateral))
    const pemStart = Buffer.from(good).indexOf('-----BEGIN')
    const wrongly: number[] = []
    for (let at = 0; at < pemStart; at += step) {
      const changed = good.slice()
      changed[at] = (changed[at] ?? 0) ^ (1 << (at % 8))
      if (affirmed(changed, collateral)) wrongly.push(at)
    }
    t.deepEqual(wrongly, [])
  })
}

test('a chain with a letter of the platform’s certificate changed is not affirmed', (t) => {
  const good = quote()
  const start = Buffer.from(good).indexOf('-----BEGIN')
  const end = Buffer.from(good).indexOf('-----END')
  const wrongly: number[] = []
  for (let at = start; at < end; at += STEP) {
    const byte = good[at] ?? 0
    if (byte === 0x0a) continue
    const changed = good.slice()
    changed[at] = byte === 0x41 ? 0x42 : 0x41
    if (affirmed(changed, collateral)) wrongly.push(at)
  }
  t.deepEqual(wrongly, [])
})

for (const { name, bytes } of collateral) {
  test(`collateral with a byte of ${name} changed affirms nothing`, (t) => {
    const wrongly: number[] = []
    for (let at = 0; at < bytes.length; at += STEP) {
      if (bytes[at] === 0x0a) continue
      const changed = bytes.slice()
      changed[at] = (changed[at] ?? 0) ^ 0x01
      const files = collateral.map((file) => (file.name === name ? { name, bytes: changed } : file))
      if (affirmed(quoteOnce, files)) wrongly.push(at)
    }
    t.deepEqual(wrongly, [])
  })
}
