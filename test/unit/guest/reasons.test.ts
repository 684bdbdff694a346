import test from 'ava'
import { VerifierRefusal } from '#attestation/client/verifier-http'
import { AgentError } from '#guest/agent/agent-error'
import { judging } from '#guest/agent/denied-requests'
import { MAX_REASONS, MAX_WAITING_REPORTS, REPORT_BURST, REPORT_INTERVAL_MS } from '#guest/agent/limits'
import { ReasonReports } from '#guest/agent/reason-reports'
import { ReasonLog, Refusals } from '#guest/agent/reasons'
import { DeniedError } from '#protocol/errors'
import { nodeCrypto } from '#protocol/node/crypto'
import type { ReasonReport } from '#protocol/reason-report'

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

const REQUEST = {
  containerId: 'c1',
  name: 'web',
  image: 'registry.test/web:1',
  args: ['sh'],
  env: ['MODE=debug'],
  user: '',
  workingDir: '',
  mounts: [],
  terminal: false,
  stdin: false,
  sharesProcesses: false,
  resources: { memoryBytes: 0, cpuQuotaUs: 0, cpuPeriodUs: 0, pids: 0 },
}

test('the verifier is told what the guest itself refused, with the request of a denied container, and nothing that it knows', (t) => {
  const { log, refusals } = setUp()
  const told: ReasonReport[] = []
  log.reportTo((report) => told.push(report))
  const denial = new DeniedError('ERR_POLICY_DENIED', 'no', { field: 'f', allowed: 'a', asked: 'b' })
  const error = t.throws(() =>
    judging(REQUEST, () => {
      throw denial
    }),
  )
  const { correlationId } = refusals.record(error, 'CreateContainer c1')
  refusals.record(new AgentError('notFound', 'ERR_CONTAINER_UNKNOWN', 'there is none'), 'StartContainer x')
  refusals.record(new VerifierRefusal({ status: 403, code: 'ERR_RELEASE_IMAGES', correlationId: 'ab' }, 'no'), 'x')
  t.deepEqual(
    told.map(({ correlationId: id }) => id),
    [correlationId],
  )
  t.like(told[0], {
    code: 'ERR_POLICY_DENIED',
    subject: 'CreateContainer c1',
    denial: { field: 'f', allowed: 'a', asked: 'b' },
  })
  t.like(JSON.parse(told[0]?.request ?? ''), { name: 'web', args: ['sh'], env: { MODE: 'debug' } })
  t.false(JSON.stringify(log.entries).includes('registry.test'), 'the request is not kept')
  const long = { ...REQUEST, args: ['x'.repeat(100_000)] }
  const another = t.throws(() =>
    judging(long, () => {
      throw new DeniedError('ERR_POLICY_DENIED', 'no', { field: 'f', allowed: 'a', asked: 'b' })
    }),
  )
  refusals.record(another, 'CreateContainer c2')
  t.is(told[1]?.request, undefined, 'too long to wait in memory')
})

test('reasons are told a few at once, then one now and then, and too many are dropped; nobody waits for them', async (t) => {
  let nowMs = 0
  const told: number[] = []
  const slept: number[] = []
  let release: (() => void) | undefined
  const reports = new ReasonReports({
    clock: {
      monotonicMs: () => nowMs,
      sleep: async (ms) => {
        slept.push(ms)
        await new Promise<void>((resolve) => {
          release = resolve
        })
        nowMs += ms
      },
    },
    tell: async () => {
      told.push(nowMs)
      throw new Error('the verifier is away')
    },
  })
  const settle = async () => {
    for (let turn = 0; turn < 50; turn++) await Promise.resolve()
  }
  const report = {
    correlationId: 'a'.repeat(16),
    code: 'ERR_X',
    subject: '',
    message: '',
    hint: undefined,
    denial: undefined,
    request: undefined,
  }
  for (let count = 0; count < 1000; count++) reports.add(report)
  await settle()
  t.is(told.length, REPORT_BURST)
  release?.()
  await settle()
  t.is(told.length, REPORT_BURST + 1)
  t.is(told.at(-1), REPORT_INTERVAL_MS)
  t.deepEqual(slept, [REPORT_INTERVAL_MS, REPORT_INTERVAL_MS])
  for (let count = 0; count < 1000; count++) {
    release?.()
    await settle()
  }
  t.is(told.length, MAX_WAITING_REPORTS + 1)
})
