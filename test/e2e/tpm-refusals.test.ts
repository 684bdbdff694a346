/**
 * A host that owns the TPM and lies with it to the verifier, through a guest that booted: evidence of an earlier boot,
 * evidence for another key, evidence of another TPM. Each is refused with its code, and nothing is released.
 */
import { readFileSync } from 'node:fs'
import anyTest, { type ExecutionContext, type TestFn } from 'ava'
import { Attester } from '#attestation/client/attester'
import { createTeeKeyPair } from '#attestation/client/sealed-resource'
import { tpmEvidenceSource } from '#attestation/client/tpm-evidence-source'
import { VerifierRefusal } from '#attestation/client/verifier-http'
import type { Pod } from '#host-shim/pod/pod'
import type { PodPlan } from '#host-shim/pod/pod-plan'
import { Stage } from '#protocol/gen/agent_pb'
import { reportDataDigest } from '#protocol/kbs-messages'
import { nodeCrypto } from '#protocol/node/crypto'
import { UndiciTransport } from '#protocol/node/http'
import { manufactureTpm, startTpm } from '#vmm/swtpm'
import { startTpm as startBareTpm } from '../fixtures/tpm/swtpm.ts'
import { attest, boot, honestPlan, refusalOf } from './fixtures/host.ts'
import { IMAGE_POLICY, Tenant, VERIFIER_NAME } from './fixtures/tenant.ts'
import { type TpmAnswer, TpmInTheMiddle } from './fixtures/tpm-in-the-middle.ts'
import { quoteBoundTo, quotedBy, Recording } from './fixtures/tpm-lies.ts'

interface Context {
  readonly tenant: Tenant
  readonly initdata: Uint8Array
  /** State of the TPM that the host keeps over both boots. */
  readonly tpmState: string
  readonly recording: Recording
}

const test = anyTest as TestFn<Context>

const IMAGE = `registry.test:5000/web@sha256:${'ab'.repeat(32)}`
const POLICY = `apiVersion: caisson/v1
kind: WorkloadPolicy
containers:
  - name: web
    image: ${IMAGE}
`

test.before(async (t) => {
  const tenant = await Tenant.start()
  const initdata = tenant.initdata(POLICY)
  await tenant.expect(initdata)
  const tpmState = tenant.path('kept-tpm')
  await manufactureTpm({ stateDir: tpmState, ca: tenant.tpmCa, name: 'kept' })
  t.context = { tenant, initdata, tpmState, recording: new Recording() }
})

test.after.always(async (t) => {
  await t.context.tenant?.[Symbol.asyncDispose]()
})

/** Boots the plan with `answer` between guest and TPM: a new TPM, or the one that the host keeps. */
async function bootWith(
  t: ExecutionContext<Context>,
  plan: PodPlan,
  answer: TpmAnswer,
  keepsTpm = false,
): Promise<Pod> {
  const { tenant, tpmState } = t.context
  let swtpm: string | undefined
  if (keepsTpm) {
    swtpm = tenant.path(`${plan.id}.kept`)
    const tpm = await startTpm({ stateDir: tpmState, socket: swtpm })
    t.teardown(() => tpm[Symbol.asyncDispose]())
  }
  const middle = await TpmInTheMiddle.start(t, tenant, answer, swtpm)
  return boot(t, tenant, plan, { onStage: middle.stepIn(tenant, plan) })
}

/** Key and credential are the TPM's own: only the quote gives the lie away. */
const QUOTE_ALONE = [
  ['attestation key', true],
  ['credential secret', true],
  ['quote', false],
]

async function assertRecorded(t: ExecutionContext<Context>, id: string, code: string): Promise<void> {
  const [record] = await t.context.tenant.admin.explain(id)
  t.deepEqual([record?.stage, record?.verdict, record?.code], ['attest', 'refused', code])
  t.deepEqual(
    record?.checks.map(({ claim, ok }) => [claim, ok]),
    QUOTE_ALONE,
  )
}

/** The verifier refuses the guest for its quote, and gives nothing out; the guest runs nothing. */
async function assertQuoteRefused(t: ExecutionContext<Context>, pod: Pod, code: string): Promise<void> {
  const { tenant } = t.context
  const released = await tenant.releases()
  const refusal = await refusalOf(attest(pod))
  t.is(refusal.code, code)
  await assertRecorded(t, refusal.correlationId, code)
  t.deepEqual(await tenant.releases(), released, 'nothing was released')
  t.deepEqual(tenant.fetchedBlobs(), [], 'nothing was pulled')
  t.is((await pod.agent.getStatus()).stage, Stage.FAILED)
  const run = await refusalOf(pod.agent.createContainer({ containerId: 'c', image: IMAGE }))
  t.is(run.code, 'ERR_AGENT_STAGE', 'nothing runs')
}

test.serial(
  'a guest whose TPM commands pass through the host attests: the way of the lies below is open',
  async (t) => {
    const { tenant, initdata, recording } = t.context
    await attest(await bootWith(t, honestPlan(tenant, initdata), recording.record, true))
    const [record] = await tenant.admin.listAttestations({ verdict: 'accepted', limit: 1 })
    t.is(record?.tee, 'tpm')
    t.deepEqual(await tenant.releases(), [IMAGE_POLICY])
  },
)

test.serial('an old quote, replayed by the TPM for a guest that boots another command line, is refused', async (t) => {
  const { tenant, initdata, recording } = t.context
  const honest = honestPlan(tenant, initdata)
  const guest = { ...honest.guest, commandLine: `${honest.guest.commandLine} caisson.debug` }
  const pod = await bootWith(t, { ...honest, guest }, recording.replay, true)
  await assertQuoteRefused(t, pod, 'ERR_QUOTE_STALE')
})

test.serial('a guest’s quote, presented by the host for a key of its own, is refused', async (t) => {
  const { tenant, initdata, tpmState, recording } = t.context
  // The host has the TPM itself, so the credential opens; what it lacks is a quote for its key.
  const tpm = await startBareTpm({ directory: tenant.directory, state: tpmState })
  t.teardown(() => tpm[Symbol.asyncDispose]())
  const http = new UndiciTransport({ caPem: [tenant.ca.certificatePem], hosts: { [VERIFIER_NAME]: '127.0.0.1' } })
  t.teardown(() => http.close())
  const attester = new Attester({
    http,
    crypto: nodeCrypto,
    evidence: tpmEvidenceSource({
      tpm: {
        submit: (command) => recording.replay(Buffer.from(command), tpm.device),
        eventLog: async () => readFileSync(new URL('../fixtures/tpm/direct-boot.bin', import.meta.url)),
      },
      crypto: nodeCrypto,
    }),
    url: tenant.verifier.url.replace('localhost', VERIFIER_NAME),
    now: () => new Date(),
  })
  const error = await t.throwsAsync(attester.attest({ initdataToml: initdata }), { instanceOf: VerifierRefusal })
  await assertRecorded(t, error?.refusal.correlationId ?? '', 'ERR_QUOTE_STALE')
})

test.serial('evidence that the TPM binds to a key of the host is refused', async (t) => {
  const { tenant, initdata } = t.context
  const { publicKey: teePublicKey } = await createTeeKeyPair()
  const nonce = Buffer.alloc(32, 7).toString('base64')
  const bound = reportDataDigest(nodeCrypto, { version: '0.4.0', nonce, teePublicKey, additionalEvidence: '' })
  const pod = await bootWith(t, honestPlan(tenant, initdata), quoteBoundTo(bound))
  await assertQuoteRefused(t, pod, 'ERR_QUOTE_STALE')
})

test.serial(
  'a quote by the attestation key of another TPM of the same CA, with the same PCRs, is refused',
  async (t) => {
    const { tenant, initdata } = t.context
    const state = tenant.path('other-tpm')
    await manufactureTpm({ stateDir: state, ca: tenant.tpmCa, name: 'other' })
    const other = await startBareTpm({ directory: tenant.directory, state })
    t.teardown(() => other[Symbol.asyncDispose]())
    const pod = await bootWith(t, honestPlan(tenant, initdata), quotedBy(other.device))
    await assertQuoteRefused(t, pod, 'ERR_QUOTE_SIGNATURE')
  },
)
