import { createHash } from 'node:crypto'
import test from 'ava'
import fc from 'fast-check'
import {
  consistencyProof,
  EMPTY_ROOT,
  inclusionProof,
  leafHash,
  nodeHash,
  RootBuilder,
  type SubtreeHash,
  type TreeHash,
  treeRoot,
  verifyConsistency,
  verifyInclusion,
} from '#attestation/audit/merkle-tree'

/** The inputs that the test data of Certificate Transparency implementations use, with RFC 6962's roots for them. */
const KNOWN_LEAVES = [
  '',
  '00',
  '10',
  '2021',
  '3031',
  '40414243',
  '5051525354555657',
  '606162636465666768696a6b6c6d6e6f',
]
const KNOWN_ROOTS = [
  '6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d',
  'fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125',
  'aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77',
  'd37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7',
  '4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4',
  '76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef',
  'ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c',
  '5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328',
]

const leaves = (count: number): TreeHash[] =>
  Array.from({ length: count }, (_, index) => leafHash(Buffer.from(String(index))))

/** Straight from the definition, so that it shares nothing with what is tested. */
function definedRoot(hashes: readonly TreeHash[]): TreeHash {
  if (hashes.length === 0) return new Uint8Array(createHash('sha256').digest())
  const [only] = hashes
  if (hashes.length === 1 && only !== undefined) return only
  let split = 1
  while (split * 2 < hashes.length) split *= 2
  return nodeHash(definedRoot(hashes.slice(0, split)), definedRoot(hashes.slice(split)))
}

const stored =
  (hashes: readonly TreeHash[]): SubtreeHash =>
  (level, index) => {
    const part = hashes.slice(index * 2 ** level, (index + 1) * 2 ** level)
    if (part.length !== 2 ** level) throw new Error(`subtree ${level}/${index} is not complete`)
    return definedRoot(part)
  }

test('roots are those of Certificate Transparency for its well-known leaves', async (t) => {
  const hashes = KNOWN_LEAVES.map((hex) => leafHash(Buffer.from(hex, 'hex')))
  t.deepEqual(
    await Promise.all(
      hashes.map(async (_, index) => Buffer.from(await treeRoot(stored(hashes), index + 1)).toString('hex')),
    ),
    KNOWN_ROOTS,
  )
  t.deepEqual(await treeRoot(stored([]), 0), EMPTY_ROOT)
})

test('a root computed entry by entry is the root of the definition, for every size', async (t) => {
  const hashes = leaves(130)
  const builder = new RootBuilder()
  for (let size = 0; size <= hashes.length; size++) {
    t.deepEqual(builder.root(), definedRoot(hashes.slice(0, size)))
    t.deepEqual(await treeRoot(stored(hashes), size), definedRoot(hashes.slice(0, size)))
    const next = hashes[size]
    if (next !== undefined) builder.add(next)
  }
})

test('every entry of a log is proved to be in it, at its place and no other', async (t) => {
  for (let size = 1; size <= 20; size++) {
    const hashes = leaves(size)
    const root = definedRoot(hashes)
    for (const [index, leaf] of hashes.entries()) {
      const proof = await inclusionProof(stored(hashes), index, size)
      t.true(verifyInclusion({ leaf, index, size, root, proof }), `${index} of ${size}`)
      for (let other = 0; other < size; other++) {
        if (other !== index) t.false(verifyInclusion({ leaf, index: other, size, root, proof }))
      }
      t.false(verifyInclusion({ leaf: leafHash(Buffer.from('other')), index, size, root, proof }))
      t.false(verifyInclusion({ leaf, index, size, root, proof: [...proof, root] }))
      if (proof.length > 0) t.false(verifyInclusion({ leaf, index, size, root, proof: proof.slice(1) }))
    }
  }
})

test('a log that only grew is proved to be the continuation of what it was, for every pair of sizes', async (t) => {
  const hashes = leaves(24)
  for (let newer = 0; newer <= hashes.length; newer++) {
    for (let older = 0; older <= newer; older++) {
      const claim = {
        older: { size: older, root: definedRoot(hashes.slice(0, older)) },
        newer: { size: newer, root: definedRoot(hashes.slice(0, newer)) },
        proof: await consistencyProof(stored(hashes), older, newer),
      }
      t.true(verifyConsistency(claim), `${older} to ${newer}`)
      t.false(verifyConsistency({ ...claim, proof: [...claim.proof, EMPTY_ROOT] }))
      if (claim.proof.length > 0) t.false(verifyConsistency({ ...claim, proof: claim.proof.slice(1) }))
    }
  }
})

test('a log with a changed, moved or missing old entry has no proof of continuation', async (t) => {
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 2, max: 40 }),
      fc.integer({ min: 1, max: 40 }),
      fc.nat(),
      async (grown, base, at) => {
        const older = Math.min(base, grown)
        const hashes = leaves(grown)
        const root = definedRoot(hashes.slice(0, older))
        const changed = hashes.with(at % older, leafHash(Buffer.from('changed')))
        const cut = hashes.filter((_, index) => index !== at % older)
        for (const forged of [changed, cut]) {
          const newer = { size: forged.length, root: definedRoot(forged) }
          if (forged.length < older) continue
          const proof = await consistencyProof(stored(forged), older, forged.length)
          if (verifyConsistency({ older: { size: older, root }, newer, proof })) return false
        }
        return true
      },
    ),
  )
  t.pass()
})

test('proofs of hostile shape are refused, not computed', async (t) => {
  const hash = leafHash(Buffer.from('x'))
  fc.assert(
    fc.property(
      fc.oneof(fc.integer(), fc.double()),
      fc.oneof(fc.integer(), fc.double()),
      fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 120 }),
      (index, size, proof) =>
        !verifyInclusion({ leaf: hash, index, size, root: EMPTY_ROOT, proof }) &&
        !verifyConsistency({ older: { size: index, root: hash }, newer: { size, root: EMPTY_ROOT }, proof }),
    ),
  )
  await t.throwsAsync(inclusionProof(stored([]), 0, 0), { code: 'ERR_AUDIT_RANGE' })
  await t.throwsAsync(consistencyProof(stored(leaves(2)), 3, 2), { code: 'ERR_AUDIT_RANGE' })
})
