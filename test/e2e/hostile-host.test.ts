/**
 * A host that speaks to the agent in every way but the right one, and one that turns the clock back. The guest refuses
 * with codes, and goes on serving whoever keeps to the rules.
 */
import { once } from 'node:events'
import { chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import type { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import anyTest, { type TestFn } from 'ava'
import { AgentClient } from '#host-shim/pod/agent-client'
import { openGuestStream } from '#host-shim/pod/guest-streams'
import type { Pod } from '#host-shim/pod/pod'
import { connectVsock, redeemTicket } from '#host-shim/pod/vsock'
import { AGENT_RPC_PORT, AGENT_STREAM_PORT } from '#protocol/agent-service'
import { ContainerState, Stage, StreamKind } from '#protocol/gen/agent_pb'
import { attest, boot, honestPlan, refusalOf } from './fixtures/host.ts'
import { startGuest, startSandbox } from './fixtures/shell-guest.ts'
import { Tenant } from './fixtures/tenant.ts'

const SIGKILL = 9

interface Context {
  pod: Pod
  image: string
}

const test = anyTest as TestFn<Context>
const cleanUp = new AsyncDisposableStack()

test.before(async (t) => {
  t.timeout(1_200_000)
  const folder = await mkdtemp(join(tmpdir(), 'ch-'))
  cleanUp.defer(() => rm(folder, { recursive: true, force: true }))
  const held = Object.assign(t, { teardown: (end: () => unknown) => cleanUp.defer(async () => void (await end())) })
  const rules = (image: string) => `
  - { name: app, image: "${image}", logs: allow, stdin: true, max: 2 }
`
  t.context = await startGuest(folder, held, { id: 'hostile-host', memoryMib: 1024, more: [], rules })
})

test.after.always(() => cleanUp.disposeAsync())

async function codeOf(action: Promise<unknown>): Promise<string> {
  return (await refusalOf(action)).code
}

test.serial('a host that skips the start of the sandbox gets nothing of containers', async (t) => {
  const { pod, image } = t.context
  const { agent } = pod
  t.is(await codeOf(agent.createContainer({ containerId: 'c', image })), 'ERR_AGENT_STAGE')
  t.is(await codeOf(agent.startContainer('c')), 'ERR_AGENT_STAGE')
  t.is(await codeOf(agent.openStream({ kind: StreamKind.PORT, port: 80 })), 'ERR_AGENT_STAGE')
  await startSandbox(pod)
})

test.serial(
  'a host that repeats or skips steps, or names other containers, is told a code and changes nothing',
  async (t) => {
    const { pod, image } = t.context
    const { agent } = pod
    t.is(await codeOf(agent.startSandbox({ hostname: 'again' })), 'ERR_AGENT_STAGE')
    for (const containerId of ['nobody', 'c2']) {
      t.is(await codeOf(agent.startContainer(containerId)), 'ERR_CONTAINER_UNKNOWN')
      t.is(await codeOf(agent.delete({ containerId })), 'ERR_CONTAINER_UNKNOWN')
      t.is(await codeOf(agent.wait({ containerId })), 'ERR_CONTAINER_UNKNOWN')
      t.is(await codeOf(agent.getStats(containerId)), 'ERR_CONTAINER_UNKNOWN')
      t.is(await codeOf(agent.openStream({ kind: StreamKind.LOGS, containerId })), 'ERR_CONTAINER_UNKNOWN')
    }
    for (const containerId of ['', '../c', '.', 'c\0d', 'x'.repeat(10_000)]) {
      t.is(
        await codeOf(agent.createContainer({ containerId, image })),
        'ERR_REQUEST_MALFORMED',
        containerId.slice(0, 9),
      )
    }
    await agent.createContainer({ containerId: 'c', image, stdin: true })
    t.is(await codeOf(agent.createContainer({ containerId: 'c', image })), 'ERR_CONTAINER_EXISTS')
    const exec = { containerId: 'c', execId: 'e', args: ['/bin/sh'] }
    t.regex(await codeOf(agent.exec(exec)), /^ERR_(?:CONTAINER_STATE|POLICY_DENIED)$/)
    await agent.startContainer('c')
    t.is(await codeOf(agent.startContainer('c')), 'ERR_CONTAINER_STATE')
    t.is(await codeOf(agent.delete({ containerId: 'c' })), 'ERR_CONTAINER_STATE')
    t.is(await codeOf(agent.wait({ containerId: 'c', execId: 'e' })), 'ERR_PROCESS_UNKNOWN')
    t.deepEqual(
      (await agent.listContainers()).map(({ containerId, state }) => [containerId, state]),
      [['c', ContainerState.RUNNING]],
    )
  },
)

test.serial('a ticket that is guessed, or used twice, opens nothing', async (t) => {
  const { pod } = t.context
  const ticket = await pod.agent.openStream({ kind: StreamKind.LOGS, containerId: 'c', follow: true })
  for (const wrong of ['0'.repeat(ticket.length), `${ticket.slice(1)}0`, ticket.replace(/./g, '/')]) {
    const error = await t.throwsAsync<Error & { code?: string }>(redeemTicket(pod.vsock, wrong))
    t.regex(error?.code ?? '', /^ERR_(?:STREAM_REFUSED|VSOCK_CONNECT)$/)
  }
  const right = await redeemTicket(pod.vsock, ticket)
  const twice = await t.throwsAsync<Error & { code?: string }>(redeemTicket(pod.vsock, ticket))
  t.regex(twice?.code ?? '', /^ERR_(?:STREAM_REFUSED|VSOCK_CONNECT)$/)
  right.destroy()
})

/** Header of a ttrpc frame: length, stream, type, flags. */
function header(length: number, streamId: number, type = 1, flags = 0): Buffer {
  const bytes = Buffer.alloc(10)
  bytes.writeUInt32BE(length, 0)
  bytes.writeUInt32BE(streamId, 4)
  bytes.writeUInt8(type, 8)
  bytes.writeUInt8(flags, 9)
  return bytes
}

/** Requests without content, on odd streams, as fast as the socket takes them. */
function requests(count: number): Buffer {
  return Buffer.concat(Array.from({ length: count }, (_, index) => header(0, 2 * index + 1)))
}

const NOISE: readonly (readonly [string, Buffer])[] = [
  ['bytes that are no frame', Buffer.alloc(4096, 0xa5)],
  ['a frame of 4 GiB', Buffer.concat([header(0xffff_ffff, 1), Buffer.alloc(65_536)])],
  ['a frame beyond the limit of the agent', Buffer.concat([header(300_000, 1), Buffer.alloc(300_000)])],
  ['a frame that never comes whole', header(1000, 1)],
  ['a request that is no protobuf', Buffer.concat([header(64, 1), Buffer.alloc(64, 0xff)])],
  ['even, zero and falling stream ids', Buffer.concat([header(0, 2), header(0, 0), header(0, 9), header(0, 1)])],
  ['unknown types and flags', Buffer.concat([header(0, 1, 99), header(0, 3, 1, 0xff), header(0, 3, 3, 0xff)])],
  ['five thousand requests without content', requests(5000)],
]

test.serial('malformed, oversized and thousands of RPC streams end alone: the agent serves the others', async (t) => {
  t.timeout(300_000)
  const { pod } = t.context
  const open: Socket[] = []
  for (const [what, bytes] of NOISE) {
    const socket = await connectVsock(pod.vsock, AGENT_RPC_PORT)
    open.push(socket)
    socket.resume()
    socket.write(bytes)
    t.is((await pod.agent.getStatus()).stage, Stage.ATTESTED, what)
  }
  // Thousands of calls at once on one connection: each is answered or refused for want of room.
  const busy = await AgentClient.connect(pod.vsock)
  const calls = await Promise.allSettled(Array.from({ length: 3000 }, () => busy.getStatus({ timeoutMs: 200_000 })))
  const refused = calls.flatMap((call) => (call.status === 'rejected' ? [String(call.reason)] : []))
  t.log(`of ${calls.length} calls at once ${refused.length} were refused`)
  t.true(calls.length - refused.length >= 100)
  t.is((await busy.getStatus()).stage, Stage.ATTESTED, 'the same connection has room again')
  busy.close()
  // Connections that say nothing, on both ports: more than the agent keeps.
  for (const port of [AGENT_RPC_PORT, AGENT_STREAM_PORT]) {
    const silent = await Promise.allSettled(Array.from({ length: 200 }, () => connectVsock(pod.vsock, port)))
    for (const result of silent) if (result.status === 'fulfilled') open.push(result.value)
    t.is((await pod.agent.getStatus()).stage, Stage.ATTESTED)
  }
  for (const socket of open) socket.destroy()
})

test.serial(
  'after all this the same guest works: input, output, exit code, new connections, codes on the console',
  async (t) => {
    const { pod, image } = t.context
    const agent = await AgentClient.connect(pod.vsock)
    t.teardown(() => agent.close())
    await agent.createContainer({ containerId: 'd', image, stdin: true })
    const stdin = await openGuestStream(pod, { kind: StreamKind.STDIN, containerId: 'd' })
    const stdout = await openGuestStream(pod, { kind: StreamKind.STDOUT, containerId: 'd' })
    await agent.startContainer('d')
    stdin.end('still here\n')
    const [first] = (await once(stdout, 'data')) as [Buffer]
    t.is(first.toString(), 'still here\n')
    t.is((await agent.wait({ containerId: 'd' })).exitCode, 7)
    await agent.signal({ containerId: 'c' }, SIGKILL)
    t.is((await agent.wait({ containerId: 'c' })).exitCode, 137)
    const console = await readFile(pod.paths.consoleLog, 'utf8')
    for (const line of console.split(/[\r\n]+/).filter((entry) => entry !== '')) t.regex(line, /^caisson: [a-z-]+$/)
  },
)

for (const year of [1970, 2099]) {
  test.serial(
    `a clock that the host set to ${year} is refused at the verifier’s certificate, with nothing released`,
    async (t) => {
      const tenant = await Tenant.start()
      t.teardown(() => tenant[Symbol.asyncDispose]())
      const policy = `apiVersion: caisson/v1\nkind: WorkloadPolicy\ncontainers:\n  - name: web\n    image: ${tenant.repository('web')}@sha256:${'ab'.repeat(32)}\n`
      const initdata = tenant.initdata(policy)
      await tenant.expect(initdata)
      const qemuProgram = tenant.path(`qemu-${year}`)
      await writeFile(qemuProgram, `#!/bin/sh\nexec qemu-system-x86_64 "$@" -rtc base=${year}-01-01T00:00:00\n`)
      await chmod(qemuProgram, 0o755)
      const pod = await boot(t, tenant, honestPlan(tenant, initdata), { qemuProgram })
      const refusal = await refusalOf(attest(pod))
      t.is(refusal.code, 'ERR_VERIFIER_TLS')
      t.not(refusal.correlationId, '')
      t.is((await pod.agent.getStatus()).stage, Stage.FAILED)
      t.deepEqual(await tenant.admin.listAttestations({ limit: 1 }), [], 'the verifier was not even asked')
      t.deepEqual(await tenant.releases(), [])
    },
  )
}
