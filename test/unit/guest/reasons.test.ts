import test from 'ava'
import { MAX_REASONS } from '#guest/agent/limits'
import { ReasonLog, Refusals } from '#guest/agent/reasons'
import { DeniedError } from '#protocol/errors'
import { nodeCrypto } from '#protocol/node/crypto'

function setUp() {
  const log = new ReasonLog()
  return { log, refusals: new Refusals(log, nodeCrypto, () => new Date(0)) }
}

test('what a host makes the agent remember is bounded, however long its words are', (t) => {
  const { log, refusals } = setUp()
  const word = 'x'.repeat(200_000)
  for (let count = 0; count < MAX_REASONS + 10; count++) {
    const options = { field: `env.${word}`, allowed: 'nothing', asked: word, hint: word }
    refusals.record(new DeniedError('ERR_TEST', word, options), `CreateContainer ${word}`)
  }
  t.is(log.entries.length, MAX_REASONS)
  t.true(JSON.stringify(log.entries).length < MAX_REASONS * 16_384)
  t.true(log.entries[0]?.denial?.field.startsWith('env.xxx'))
})

test('an error is recorded once, whoever reports it again', (t) => {
  const { log, refusals } = setUp()
  const error = new Error('secret reason')
  const first = refusals.record(error, 'StartSandbox')
  t.deepEqual(refusals.record(error, 'again'), first)
  t.is(log.entries.length, 1)
  t.false(refusals.toRpc(error, 'again').message.includes('secret'))
})
