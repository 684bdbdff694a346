/** However long somebody's evidence takes to judge, the service goes on with everybody else's in between. */
import test from 'ava'
import { STRICT_POLICY } from '#attestation/appraisal/policy'
import { NO_SOURCE } from '#attestation/collateral/source'
import type { Steps } from '#attestation/evidence/steps'
import type { Appraisal } from '#attestation/verifier/evidence'
import { HardwareEvidenceKind } from '#attestation/verifier/hardware-evidence'
import { hardwarePlatforms } from '#attestation/verifier/hardware-platforms'
import { inSlices } from '#attestation/verifier/in-slices'
import { TpmEvidenceKind } from '#attestation/verifier/tpm-evidence'
import type { JsonObject } from '#protocol/canonical-json'
import { toBase64 } from '#protocol/encoding'
import { PCR_COUNT, tpmEvidenceJson } from '#protocol/tpm-messages'
import { certifyPlatform, createIntelPki, pemChain } from '../../fixtures/tdx/intel-pki.ts'
import { makeQuote } from '../../fixtures/tdx/quote-maker.ts'
import { costliestLog } from '../../fixtures/tpm/costliest-log.ts'

const COORDINATE = toBase64(new Uint8Array(32).fill(7)).replaceAll('=', '')
const LOG_REGISTERS = [1, 2, 3, 4]
/** What is judged in one go leaves the event loop one or two. */
const MANY_TURNS = 10

/** Counts turns of the event loop until the work ends. */
async function turnsOf<T>(work: () => Promise<T>): Promise<{ result: T; turns: number }> {
  let turns = 0
  let running = true
  const look = (): void => {
    turns++
    if (running) setImmediate(look)
  }
  setImmediate(look)
  const result = await work().finally(() => {
    running = false
  })
  return { result, turns }
}

function answer(tee: 'tpm' | 'tdx', primaryEvidence: JsonObject, state = {}) {
  return {
    tenant: 'default',
    state,
    version: '0.4.0',
    nonce: 'bm9uY2U=',
    attestation: {
      nonce: 'bm9uY2U=',
      teePublicKey: { kty: 'EC', crv: 'P-256', alg: 'ECDH-ES+A256KW', x: COORDINATE, y: COORDINATE },
      primaryEvidence,
      additionalEvidence: '',
    },
    initdata: undefined,
    demands: { policies: [{ id: 'strict', policy: STRICT_POLICY }], operator: tee === 'tpm' },
    references: [],
    otherReferences: [],
  } as const
}

test('while the longest event log of a TD is judged, the verifier goes on with everything else', async (t) => {
  const platform = hardwarePlatforms().find(({ tees }) => tees.includes('tdx'))
  if (platform === undefined) throw new TypeError('TDX is a platform')
  const kind = new HardwareEvidenceKind({ platform, tee: 'tdx', collateral: NO_SOURCE, now: () => new Date() })
  const pki = createIntelPki()
  const pck = certifyPlatform({ issuer: pki.platformCa, platformInstance: true })
  const certification = { type: 5, data: pemChain(pck, pki.platformCa, pki.root) }
  const quote = toBase64(makeQuote({ pckKey: pck.key, certification }))
  const judge = (log: string): Promise<Appraisal> => kind.appraise(answer('tdx', { quote, cc_eventlog: log }))
  const { result, turns } = await turnsOf(() => judge(toBase64(costliestLog(LOG_REGISTERS))))
  t.false(result.accepted)
  t.true(
    result.checks.some(({ claim }) => claim.includes('does not replay to RTMR0')),
    'the log was read to its end and replayed',
  )
  t.true(turns > MANY_TURNS, `${turns} turns of the event loop`)
})

test('while the longest event log of a TPM is read, the verifier goes on with everything else', async (t) => {
  const kind = new TpmEvidenceKind({ roots: [], intermediates: [], now: () => new Date() })
  const secret = new Uint8Array(32)
  const evidence = tpmEvidenceJson({
    akPublic: secret,
    quote: { message: secret, signature: secret, pcrs: Array.from({ length: PCR_COUNT }, () => secret) },
    eventLog: costliestLog(),
    credentialSecret: secret,
    images: [],
  })
  const state = { secret: toBase64(secret), ak: toBase64(secret), ek: 'ab', anchors: [], emulated: true }
  const { result, turns } = await turnsOf(() =>
    kind.appraise(answer('tpm', evidence, state)).catch((error: unknown) => error),
  )
  t.like(result, { code: 'ERR_TPM_ALGORITHM' }, 'the key is looked at when the log was read')
  t.true(turns > MANY_TURNS, `${turns} turns of the event loop`)
})

test('several long computations get their slices in turn, one in each turn of the event loop', async (t) => {
  const order: string[] = []
  function* long(name: string): Steps<string> {
    for (let slice = 0; slice < 5; slice++) {
      order.push(name)
      const end = performance.now() + 2
      while (performance.now() < end); // a slice is over
      yield
    }
    return name
  }
  const { result, turns } = await turnsOf(() => Promise.all(['a', 'b', 'c'].map((name) => inSlices(long(name)))))
  t.deepEqual(result, ['a', 'b', 'c'])
  t.deepEqual(order.slice(0, 9), ['a', 'b', 'c', 'a', 'b', 'c', 'a', 'b', 'c'])
  t.true(turns >= 12, `${turns} turns of the event loop`)
})

test('what a long computation throws reaches whoever asked for it', async (t) => {
  function* failing(): Steps<never> {
    yield
    throw new RangeError('no')
  }
  await t.throwsAsync(inSlices(failing()), { instanceOf: RangeError, message: 'no' })
})
