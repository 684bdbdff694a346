import test from 'ava'
import fc from 'fast-check'
import { chainId } from '#image/layer/chain-id'
import { checkContentRange, rangeHeader } from '#image/registry/content-range'
import { nodeCrypto } from '#protocol/node/crypto'
import { computeDigest, type Digest } from '#protocol/oci/digest'

test('an answer must be exactly the range that was asked for, of a thing of that size', (t) => {
  const check = (header: string | undefined) => () => checkContentRange(header, { from: 10, to: 20 }, 100, 'blob')
  t.notThrows(check('bytes 10-19/100'))
  t.notThrows(check('bytes 10-19/*'))
  const wrong = [
    'bytes 10-20/100',
    'bytes 9-19/100',
    'bytes 10-19/101',
    'bytes */100',
    'items 10-19/100',
    '',
    undefined,
  ]
  for (const header of [...wrong, 'bytes 10-19/100 ', 'bytes 1e1-19/100']) {
    t.throws(check(header), { code: 'ERR_REGISTRY_RANGE' }, `${header}`)
  }
})

test('whatever a registry answers, only the range that was asked for passes', (t) => {
  const numbers = fc.nat({ max: 1_000_000 })
  fc.assert(
    fc.property(numbers, numbers, numbers, numbers, numbers, (from, length, first, last, total) => {
      const asked = { from, to: from + length + 1 }
      const size = asked.to + 5
      const same = first === from && last === asked.to - 1 && total === size
      try {
        checkContentRange(`bytes ${first}-${last}/${total}`, asked, size, 'blob')
        return same
      } catch {
        return !same
      }
    }),
  )
  t.is(rangeHeader({ from: 0, to: 1 }), 'bytes=0-0')
})

test('the chain id is that of image-spec, for any number of layers', (t) => {
  const digest = (text: string): Digest => computeDigest(nodeCrypto, new TextEncoder().encode(text))
  const [a, b, c] = [digest('a'), digest('b'), digest('c')]
  t.is(chainId(nodeCrypto, [a]), a)
  const ab = digest(`${a} ${b}`)
  t.is(chainId(nodeCrypto, [a, b]), ab)
  t.is(chainId(nodeCrypto, [a, b, c]), digest(`${ab} ${c}`))
  t.is(chainId(nodeCrypto, []), digest(''))
})
