/** The agent in a virtual machine of platform `none`: everything but attestation, through the host's own clients. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { buildGuest } from '#guest/build/build'
import { openGuestStream } from '#host-shim/pod/guest-streams'
import { type Pod, startPod } from '#host-shim/pod/pod'
import { CAISSON_POD } from '#native/host/index'
import { ContainerState, EventKind, Stage, StreamKind } from '#protocol/gen/agent_pb'
import { encodeInitdata } from '#protocol/initdata'
import { USER_NETWORK } from '#vmm/qemu/command-line'
import { shellLayers } from '../component/guest/shell-image.ts'
import { pushLayers } from '../component/image/fixtures/image.ts'
import { startRegistry } from '../component/image/fixtures/registry.ts'

/** The root of the image: neither the usual mode nor the usual owner. */
const ROOT = { path: '.', type: 'directory', mode: 0o751, uid: 7, gid: 8, mtime: 1_400_000_000 } as const

const SIGTERM = 15
const SIGKILL = 9

async function startSandboxed(t: ExecutionContext): Promise<{ pod: Pod; image: string }> {
  const folder = await mkdtemp(join(tmpdir(), 'ca-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  const guest = await buildGuest()
  const registry = await startRegistry(t, join(folder, 'registry'))
  const pushed = await pushLayers(registry, folder, {
    layers: [...shellLayers(), { compression: 'none', entries: [ROOT] }],
    config: { Entrypoint: ['/bin/sh', '-c'], Cmd: ['echo out; echo err >&2; exit 7'], Env: ['A=image'], User: 'web' },
  })
  const policyYaml = `
apiVersion: caisson/v1
kind: WorkloadPolicy
imagePolicy: { default: [ { type: insecureAcceptAnything } ] }
containers:
  - name: once
    image: ${pushed.reference}
    logs: allow
  - name: shell
    image: ${pushed.reference}
    args: [/bin/sh, -c, "trap 'exit 5' TERM; cat; while :; do sleep 1; done"]
    user: root
    env: { B: [two] }
    logs: allow
    stdin: true
    terminal: true
    exec:
      - [/bin/sh]
      - [/bin/cat, /etc/motd]
      - [/bin/sh, -c, "id; hostname; cat /proc/self/status | grep -i -e seccomp -e nonewprivs; ls /etc; env; cat /etc/hosts"]
      - [/bin/stat, -c, "%a %u %g", /]
      - [/bin/unshare, -n, /bin/true]
      - [/bin/dd, if=/dev/zero, of=/dev/null, bs=900M, count=1]
    mounts:
      - { kind: scratch, path: /data }
      - { kind: tmpfs, path: /scratch, maxBytes: 65536 }
`
  const initdata = encodeInitdata({
    verifier: undefined,
    registryCaPem: [registry.caPem],
    imagePolicyResource: undefined,
    registryCredentialsResource: undefined,
    policyYaml,
    tenantKeyJwk: undefined,
  })
  const pod = await startPod(
    {
      id: 'agent-test',
      platform: 'none',
      accelerator: 'tcg',
      guest: {
        kernel: guest.kernelPath,
        root: guest.rootPath,
        commandLine: guest.manifest.cmdline.none,
      },
      vcpus: 2,
      memoryMib: 1024,
      scratchMib: 1024,
      initdata,
      network: 'user',
    },
    {
      stateRoot: folder,
      podProgram: CAISSON_POD,
      onStage: (stage, atMs) => t.log(`${atMs} ms: ${stage}`),
    },
  )
  t.teardown(() => pod.stop())
  t.log(`ready: ${JSON.stringify(pod.stages)}`)
  const registryHost = { name: 'registry.test', address: '10.0.2.2' }
  t.is((await pod.agent.getStatus()).stage, Stage.READY)
  await t.throwsAsync(pod.agent.listContainers(), { code: 'ERR_AGENT_STAGE' })
  await pod.agent.startSandbox({
    hostname: 'sandbox',
    interfaces: [{ ...USER_NETWORK, addresses: [...USER_NETWORK.addresses], gateways: [...USER_NETWORK.gateways] }],
    nameservers: [...USER_NETWORK.nameservers],
    hosts: [registryHost],
  })
  return { pod, image: pushed.reference }
}

async function output(pod: Pod, kind: StreamKind, containerId: string, execId = ''): Promise<string> {
  const socket = await openGuestStream(pod, { kind, containerId, execId, follow: true })
  const chunks: Buffer[] = []
  for await (const chunk of socket) chunks.push(chunk)
  return Buffer.concat(chunks).toString()
}

test('a sandbox runs containers from images it verified, within its policy, and ends without a trace', async (t) => {
  const { pod, image } = await startSandboxed(t)
  const { agent } = pod
  t.is((await agent.getStatus()).stage, Stage.ATTESTED)
  await t.throwsAsync(agent.startSandbox({}), { code: 'ERR_AGENT_STAGE' })

  // One container to its end.
  const created = await agent.createContainer({ containerId: 'one', name: 'once', image })
  t.true(image.endsWith(created.imageDigest))
  await t.throwsAsync(agent.createContainer({ containerId: 'one', name: 'once', image }), {
    code: 'ERR_CONTAINER_EXISTS',
  })
  await t.throwsAsync(agent.createContainer({ containerId: 'two', name: 'once', image }), { code: 'ERR_POLICY_DENIED' })
  const out = output(pod, StreamKind.STDOUT, 'one')
  const err = output(pod, StreamKind.STDERR, 'one')
  await agent.startContainer('one')
  t.is((await agent.wait({ containerId: 'one' })).exitCode, 7)
  t.is(await out, 'out\n')
  t.is(await err, 'err\n')
  t.is(await output(pod, StreamKind.LOGS, 'one'), 'out\nerr\n')
  await agent.delete({ containerId: 'one' })
  await t.throwsAsync(agent.wait({ containerId: 'one' }), { code: 'ERR_CONTAINER_UNKNOWN' })

  // One that stays: input, exec, terminal, signals, statistics.
  await agent.createContainer({ containerId: 'two', name: 'shell', image, env: ['B=two'], stdin: true })
  await agent.startContainer('two')
  const stdin = await openGuestStream(pod, { kind: StreamKind.STDIN, containerId: 'two' })
  const stdout = await openGuestStream(pod, { kind: StreamKind.STDOUT, containerId: 'two' })
  stdin.end('hello\n')
  const [first] = await Promise.all([new Promise<Buffer>((resolve) => stdout.once('data', resolve))])
  t.is(first.toString(), 'hello\n')

  await t.throwsAsync(agent.exec({ containerId: 'two', execId: 'no', args: ['/bin/ls'] }), {
    code: 'ERR_POLICY_DENIED',
  })
  const look = 'id; hostname; cat /proc/self/status | grep -i -e seccomp -e nonewprivs; ls /etc; env; cat /etc/hosts'
  await agent.exec({ containerId: 'two', execId: 'cat', args: ['/bin/cat', '/etc/motd'] })
  t.is(await output(pod, StreamKind.STDOUT, 'two', 'cat'), 'top layer\n')
  t.is((await agent.wait({ containerId: 'two', execId: 'cat' })).exitCode, 0)
  await agent.exec({ containerId: 'two', execId: 'look', args: ['/bin/sh', '-c', look] })
  t.log(await output(pod, StreamKind.LOGS, 'two', 'look'))
  await agent.exec({ containerId: 'two', execId: 'root', args: ['/bin/stat', '-c', '%a %u %g', '/'] })
  t.is(await output(pod, StreamKind.STDOUT, 'two', 'root'), '751 7 8\n')
  await agent.exec({ containerId: 'two', execId: 'ns', args: ['/bin/unshare', '-n', '/bin/true'] })
  t.not((await agent.wait({ containerId: 'two', execId: 'ns' })).exitCode, 0)

  // Too much memory ends the process that wants it, and nobody else.
  const greedy = ['/bin/dd', 'if=/dev/zero', 'of=/dev/null', 'bs=900M', 'count=1']
  await agent.exec({ containerId: 'two', execId: 'greedy', args: greedy })
  const killed = await agent.wait({ containerId: 'two', execId: 'greedy' })
  t.like(killed, { exitCode: 137, oomKilled: true })

  await agent.exec({ containerId: 'two', execId: 'tty', args: ['/bin/sh'], terminal: true, stdin: true })
  await agent.resize({ containerId: 'two', execId: 'tty' }, 91, 33)
  const terminal = await openGuestStream(pod, { kind: StreamKind.TERMINAL, containerId: 'two', execId: 'tty' })
  terminal.write('stty size; exit 3\n')
  const chunks: Buffer[] = []
  for await (const chunk of terminal) chunks.push(chunk)
  t.regex(Buffer.concat(chunks).toString(), /33 91/)
  t.is((await agent.wait({ containerId: 'two', execId: 'tty' })).exitCode, 3)

  const stats = await agent.getStats('two')
  t.true(stats.pids > 0n && stats.memoryBytes > 0n)
  t.log(`stats: ${JSON.stringify(stats, (_, value) => (typeof value === 'bigint' ? Number(value) : value))}`)
  await t.throwsAsync(agent.delete({ containerId: 'two' }), { code: 'ERR_CONTAINER_STATE' })
  await t.throwsAsync(agent.signal({ containerId: 'two' }, 1), { code: 'ERR_POLICY_DENIED' })
  t.is((await agent.listContainers())[0]?.state, ContainerState.RUNNING)
  await agent.signal({ containerId: 'two' }, SIGTERM)
  t.is((await agent.wait({ containerId: 'two' })).exitCode, 5)
  await agent.delete({ containerId: 'two' })

  await agent.createContainer({ containerId: 'three', name: 'shell', image })
  await agent.signal({ containerId: 'three' }, SIGKILL)
  t.is((await agent.wait({ containerId: 'three' })).exitCode, 137)

  const events: EventKind[] = []
  const early: EventKind[] = []
  for await (const event of agent.watchEvents()) {
    events.push(event.kind)
    if (event.containerId === '') early.push(event.kind)
    t.log(
      `${event.atMs} ms: ${Object.entries(EventKind).find(([, kind]) => kind === event.kind)?.[0]} ${event.containerId} ${event.errorCode}`,
    )
    if (event.kind === EventKind.EXITED && event.containerId === 'three') break
  }
  t.is(events[0], EventKind.STAGE_NETWORK)
  t.true(early.includes(EventKind.PULL_MANIFEST), 'the image is fetched as soon as the guest may, for no container yet')
  const scratch = early.indexOf(EventKind.SCRATCH)
  t.true(scratch >= 0 && scratch < early.indexOf(EventKind.PULL_MANIFEST), 'what room there is, before it is used')
  t.true(events.includes(EventKind.PULL_DONE) && events.includes(EventKind.REFUSED))
  const exit = await pod.stop()
  t.is(exit.code, 0)
})
