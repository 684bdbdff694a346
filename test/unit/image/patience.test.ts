import test from 'ava'
import { Slots } from '#image/pull/buffers'
import { mayPass, Patience, patiently, type Trouble } from '#image/pull/patience'
import { RegistryStatusError } from '#image/registry/status-error'
import { MalformedError, UnavailableError, UnverifiedError } from '#protocol/errors'

function options(noProgressMs: number) {
  const troubles: Trouble[] = []
  const abort = new AbortController()
  const onTrouble = (trouble: Trouble): void => void troubles.push(trouble)
  return { troubles, abort, given: { noProgressMs, signal: abort.signal, onTrouble } }
}

const cut = new UnavailableError('ERR_HTTP_CUT', 'cut')

test('what may pass is tried again, what is wrong is not', (t) => {
  t.true(mayPass(cut))
  for (const status of [408, 429, 500, 502, 503, 504]) t.true(mayPass(new RegistryStatusError('x', status, undefined)))
  for (const status of [400, 403, 404, 410]) t.false(mayPass(new RegistryStatusError('x', status, undefined)))
  t.false(mayPass(new UnverifiedError('ERR_DIGEST_MISMATCH', 'x')))
  t.false(mayPass(new UnavailableError('ERR_HTTP_TLS', 'x')))
  t.false(mayPass(new MalformedError('ERR_BLOB_SIZE', 'x')))
  t.false(mayPass(new Error('x')))
})

test('work is repeated until it succeeds, and every pause is told', async (t) => {
  const { troubles, given } = options(5000)
  let calls = 0
  const result = await patiently(given, async () => {
    if (++calls < 3) throw cut
    return calls
  })
  t.is(result, 3)
  t.is(troubles.length, 2)
  t.true(troubles.every(({ retryInMs }) => retryInMs >= 100 && retryInMs <= 400))
})

test('without progress patience ends with the last error, and no later than promised', async (t) => {
  const { given } = options(700)
  const before = performance.now()
  const always = async (): Promise<never> => {
    throw cut
  }
  t.is(await t.throwsAsync(patiently(given, always)), cut)
  t.true(performance.now() - before <= 700 + 300)
})

test('a registry that asks for more time than there is, is not waited for', async (t) => {
  const { given } = options(1000)
  const busy = new RegistryStatusError('busy', 429, '3')
  const before = performance.now()
  t.is(await t.throwsAsync(new Patience(given).pause(busy)), busy)
  t.true(performance.now() - before < 500)
})

test('a pause ends at once when the pull is cancelled', async (t) => {
  const { abort, given } = options(60_000)
  const reason = new Error('not wanted')
  const pause = new Patience(given).pause(new RegistryStatusError('busy', 503, '30'))
  abort.abort(reason)
  t.is(await t.throwsAsync(pause), reason)
})

test('Retry-After counts in seconds, bounded, and nothing else counts', (t) => {
  t.is(new RegistryStatusError('x', 429, '7').retryAfterMs, 7000)
  t.is(new RegistryStatusError('x', 429, '999999').retryAfterMs, 3_600_000)
  for (const text of ['', '-1', '1.5', 'Fri, 31 Dec 1999 23:59:59 GMT', '99999999999999999999']) {
    t.is(new RegistryStatusError('x', 429, text).retryAfterMs, undefined)
  }
})

test('no more connections at a time than there are slots, and who is cancelled leaves the line', async (t) => {
  const slots = new Slots(1)
  const { signal } = new AbortController()
  const leave = await slots.acquire(signal)
  const gone = new AbortController()
  const second = slots.acquire(gone.signal)
  const third = slots.acquire(signal)
  gone.abort(new Error('gone'))
  await t.throwsAsync(second, { message: 'gone' })
  leave()
  leave()
  const leaveThird = await third
  let entered = false
  const fourth = slots.acquire(signal).then(() => {
    entered = true
  })
  await Promise.resolve()
  t.false(entered)
  leaveThird()
  await fourth
  t.true(entered)
})
