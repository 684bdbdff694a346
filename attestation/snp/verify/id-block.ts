/** Was a guest launched from this signed ID block? (AMD 56860, SNP_LAUNCH_FINISH.) */
import { createPublicKey, hash, type KeyObject, verify } from 'node:crypto'
import { equalBytes, toBase64Url } from '#protocol/encoding'
import type { EcdsaKeyFields, IdAuth, IdBlock } from '../parse/id-block.ts'
import type { SnpReport } from '../parse/report.ts'
import { readEcdsaSignature } from './report-signature.ts'

const COORDINATE_BYTES = 48

/** Everything in which block, keys and report disagree; empty when the report is of a guest launched from them. */
export function idBlockMismatches(report: SnpReport, block: IdBlock, auth: IdAuth): string[] {
  const mismatches: string[] = []
  const compare = (what: string, holds: boolean): void => {
    if (!holds) mismatches.push(what)
  }
  compare('launch digest', equalBytes(block.launchDigest, report.measurement))
  compare('family id', equalBytes(block.familyId, report.familyId))
  compare('image id', equalBytes(block.imageId, report.imageId))
  compare('guest SVN', block.guestSvn === report.guestSvn)
  compare('guest policy', block.policy === report.policy)
  compare('digest of the ID key', equalBytes(keyDigest(auth.idKey), report.idKeyDigest))
  compare('signature of the ID block', isSignedBy(block.bytes, auth.blockSignature, auth.idKey))
  compare('use of an author key', report.authorKeyEnabled === (auth.author !== undefined))
  if (auth.author !== undefined) {
    compare('digest of the author key', equalBytes(keyDigest(auth.author.key), report.authorKeyDigest))
    compare('signature of the ID key', isSignedBy(auth.idKey.bytes, auth.author.idKeySignature, auth.author.key))
  }
  return mismatches
}

/** As the report states it: over the whole key structure. */
function keyDigest({ bytes }: EcdsaKeyFields): Uint8Array {
  return hash('sha384', bytes, 'buffer')
}

function isSignedBy(signed: Uint8Array, fields: SnpReport['signature'], key: EcdsaKeyFields): boolean {
  const signature = readEcdsaSignature(fields)
  const publicKey = importKey(key)
  if (signature === undefined || publicKey === undefined) return false
  return verify('sha384', signed, { key: publicKey, dsaEncoding: 'ieee-p1363' }, signature)
}

/** Undefined: not a point of the curve. */
function importKey({ x, y }: EcdsaKeyFields): KeyObject | undefined {
  if ([x, y].some((coordinate) => coordinate.subarray(COORDINATE_BYTES).some((byte) => byte !== 0))) return undefined
  const big = (coordinate: Uint8Array): string => toBase64Url(coordinate.slice(0, COORDINATE_BYTES).reverse())
  try {
    return createPublicKey({ format: 'jwk', key: { kty: 'EC', crv: 'P-384', x: big(x), y: big(y) } })
  } catch {
    return undefined
  }
}
