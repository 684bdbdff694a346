/** Whose question about collateral is asked, and when. */
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import test, { type ExecutionContext } from 'ava'
import { Turns } from '#attestation/collateral/turns'
import { UnprovenQuestions } from '#attestation/collateral/unproven-questions'
import { VendorClient } from '#attestation/collateral/vendor-client'

/** Work that ends when it is told to; `begun` names the askers in the order of their turns. */
function workplace(turns: Turns) {
  const begun: string[] = []
  const ends: (() => void)[] = []
  const ask = (asker: string): Promise<void> =>
    turns.run(asker, async () => {
      begun.push(asker)
      await new Promise<void>((resolve) => ends.push(resolve))
    })
  const end = async (): Promise<void> => {
    ends.shift()?.()
    await new Promise((resolve) => setImmediate(resolve))
  }
  return { begun, ask, end }
}

test('whoever waits gets a turn after one of every other asker, not after all of them', async (t) => {
  const { begun, ask, end } = workplace(new Turns({ atOnce: 2, atOnceOfOne: 2 }))
  const all = ['a', 'a', 'a', 'a', 'a', 'b', 'c'].map((asker) => ask(asker))
  while (begun.length < all.length) await end()
  t.deepEqual(begun, ['a', 'a', 'a', 'b', 'c', 'a', 'a'])
  await end()
  await end()
  await Promise.all(all)
})

test('one asker never has all turns, and failed work gives its turn back', async (t) => {
  const turns = new Turns({ atOnce: 3, atOnceOfOne: 2 })
  const { begun, ask, end } = workplace(turns)
  const all = ['a', 'a', 'a', 'b'].map((asker) => ask(asker))
  t.deepEqual(begun, ['a', 'a', 'b'])
  for (const _ of all) await end()
  await Promise.all(all)
  t.deepEqual(begun, ['a', 'a', 'b', 'a'])
  for (let failure = 0; failure < 5; failure++) {
    await t.throwsAsync(
      turns.run('a', () => Promise.reject(new RangeError('no'))),
      { instanceOf: RangeError },
    )
  }
})

test('a tenant has so many unproven questions, gets one more now and then, and proven ones back', (t) => {
  const clock = { now: 0 }
  const questions = new UnprovenQuestions(() => new Date(clock.now))
  const takeAll = (tenant: string): number => {
    let taken = 0
    while (questions.take(tenant)) taken++
    return taken
  }
  t.is(takeAll('a'), 32)
  t.true(questions.take('b'), 'another tenant has its own')
  clock.now = 9_000
  t.is(takeAll('a'), 0)
  clock.now = 25_000
  t.is(takeAll('a'), 2)
  questions.giveBack('a', 30)
  t.is(takeAll('a'), 30)
  clock.now = 24 * 60 * 60_000
  t.is(takeAll('a'), 32, 'and never more than at the start')
  questions.giveBack('a', 1_000)
  t.is(takeAll('a'), 32)
})

/** A service that has had enough of the paths that match, and says so for ten minutes. */
async function tiredService(t: ExecutionContext, of: RegExp) {
  const asked: string[] = []
  const server = createServer((request, response) => {
    const path = request.url ?? ''
    asked.push(path)
    if (of.test(path)) response.writeHead(429, { 'retry-after': '600' }).end()
    else response.end('an answer')
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => server.close())
  const { port } = server.address() as AddressInfo
  const client = new VendorClient({ now: () => new Date(0), timeoutMs: 60_000 })
  const ask = (path: string, chosen: boolean) =>
    client.get({ url: `http://127.0.0.1:${port}${path}`, chainHeaders: [], chosen }, 'a')
  return { asked, ask }
}

test('a service that is tired of questions about chips is still asked for its lists', async (t) => {
  const { asked, ask } = await tiredService(t, /chip/)
  for (const path of ['/chip/1', '/chip/2']) await t.throwsAsync(ask(path, true), { code: 'ERR_COLLATERAL_FETCH' })
  t.is((await ask('/crl', false))?.length, 1)
  t.deepEqual(asked, ['/chip/1', '/crl'])
})

test('a service that asks for patience about its lists is asked nothing', async (t) => {
  const { asked, ask } = await tiredService(t, /crl/)
  await t.throwsAsync(ask('/crl', false), { code: 'ERR_COLLATERAL_FETCH' })
  await t.throwsAsync(ask('/chip/1', true), { code: 'ERR_COLLATERAL_FETCH' })
  t.deepEqual(asked, ['/crl'])
})
