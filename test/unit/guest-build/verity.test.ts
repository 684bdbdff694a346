import { createHash } from 'node:crypto'
import test from 'ava'
import fc from 'fast-check'
import { commandLine } from '#guest/build/command-line'
import { VERITY_BLOCK, VerityBuilder } from '#guest/build/verity'

const salt = Buffer.alloc(32, 0x5a)
const hash = (...parts: Uint8Array[]) => createHash('sha256').update(salt).update(Buffer.concat(parts)).digest()

function build(data: Uint8Array, chunk = data.length) {
  const builder = new VerityBuilder(salt)
  for (let at = 0; at < data.length; at += chunk) builder.push(data.subarray(at, at + chunk))
  return builder.finish()
}

test('one block of data has a tree of one block, whose hash is the root', (t) => {
  const data = Buffer.alloc(VERITY_BLOCK, 1)
  const { rootHash, dataBlocks, tree } = build(data)
  const level = Buffer.concat([hash(data), Buffer.alloc(VERITY_BLOCK - 32)])
  t.is(dataBlocks, 1)
  t.deepEqual(Buffer.from(tree), level)
  t.is(rootHash, hash(level).toString('hex'))
})

test('129 blocks of data need two levels, and the upper one comes first', (t) => {
  const data = Buffer.alloc(129 * VERITY_BLOCK)
  for (let block = 0; block < 129; block++) data.writeUInt32LE(block, block * VERITY_BLOCK)
  const digests = Array.from({ length: 129 }, (_, n) => hash(data.subarray(n * VERITY_BLOCK, (n + 1) * VERITY_BLOCK)))
  const lower = Buffer.alloc(2 * VERITY_BLOCK)
  Buffer.concat(digests).copy(lower)
  const upper = Buffer.alloc(VERITY_BLOCK)
  Buffer.concat([hash(lower.subarray(0, VERITY_BLOCK)), hash(lower.subarray(VERITY_BLOCK))]).copy(upper)
  const { rootHash, tree } = build(data)
  t.deepEqual(Buffer.from(tree), Buffer.concat([upper, lower]))
  t.is(rootHash, hash(upper).toString('hex'))
})

test('the tree does not depend on how the data arrives', (t) => {
  const data = Buffer.from(Array.from({ length: 5 * VERITY_BLOCK }, (_, n) => (n * 31) & 255))
  const expected = build(data).rootHash
  const sameRoot = fc.property(fc.integer({ min: 1, max: data.length }), (n) => build(data, n).rootHash === expected)
  t.notThrows(() => fc.assert(sameRoot, { numRuns: 25 }))
})

test('data that is not whole blocks is refused', (t) => {
  t.throws(() => build(Buffer.alloc(VERITY_BLOCK + 1)), { instanceOf: RangeError })
})

test('the command line names the root by its hash and stops the machine on a block that does not match', (t) => {
  const root = { rootHash: 'ab'.repeat(32), salt: 'cd'.repeat(32), dataBlocks: 1000 }
  t.is(
    commandLine(root, 'tpm'),
    `dm-mod.create="root,,,ro,0 8000 verity 1 /dev/vda /dev/vda 4096 4096 1000 1000 sha256 ${root.rootHash} ${root.salt}` +
      ' 1 panic_on_corruption" root=/dev/dm-0 rootfstype=erofs ro init=/sbin/init console=ttyS0 quiet loglevel=0' +
      ' panic=-1 no_timer_check random.trust_bootloader=off caisson.platform=tpm',
  )
})

test('command lines of two platforms differ in the platform alone', (t) => {
  const root = { rootHash: 'ab'.repeat(32), salt: 'cd'.repeat(32), dataBlocks: 1 }
  t.is(commandLine(root, 'tpm').replace('platform=tpm', 'platform=none'), commandLine(root, 'none'))
})
