/** Pods through a real containerd: the test acts as the kubelet over CRI, the runtime handler is `caisson`. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import test, { type ExecutionContext } from 'ava'
import { buildGuest } from '#guest/build/build'
import { encodeInitdata } from '#protocol/initdata'
import { shellLayers } from '../component/guest/shell-image.ts'
import { pushLayers } from '../component/image/fixtures/image.ts'
import { startRegistry } from '../component/image/fixtures/registry.ts'
import { ContainerState } from '../fixtures/cri/gen/cri_pb.ts'
import { TestContainerd } from '../fixtures/kubernetes/containerd.ts'
import { Kubelet } from '../fixtures/kubernetes/kubelet.ts'
import { startNetwork } from '../fixtures/kubernetes/network.ts'

const MAIN = fileURLToPath(new URL('../../cli/main.ts', import.meta.url))

test('a pod runs, logs, is looked into and ends as with any other runtime', async (t) => {
  const { kubelet, image, initdata } = await cluster(t)
  await kubelet.pull(image)
  const pod = await kubelet.runPod({ name: 'first', initdata })
  t.is((await pod.status())?.state, 0)
  const once = await pod.run('once', image)
  const ended = await once.exited()
  t.is(ended.exitCode, 7)
  t.deepEqual(once.log().toSorted(), ['stderr F err', 'stdout F out'])

  const shell = await pod.run('shell', image, { command: ['/bin/sh', '-c', LOOP] })
  t.is((await shell.status()).state, ContainerState.CONTAINER_RUNNING)
  await shell.logged(/waiting/)
  const { stdout, exitCode } = await shell.exec(['/bin/cat', '/etc/motd'])
  t.is(Buffer.from(stdout).toString(), 'top layer\n')
  t.is(exitCode, 0)
  await t.throwsAsync(shell.exec(['/bin/ls']), { message: /ERR_POLICY_DENIED/ })
  await shell.stop()
  t.is((await shell.status()).exitCode, 5)
  await shell.remove()
  await once.remove()
  await pod.remove()
})

const LOOP = "trap 'exit 5' TERM; echo waiting; while :; do sleep 1; done"

async function cluster(t: ExecutionContext) {
  const folder = await mkdtemp(join(tmpdir(), 'ck-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  await buildGuest()
  const registry = await startRegistry(t, join(folder, 'registry'))
  const pushed = await pushLayers(registry, folder, {
    layers: shellLayers(),
    config: { Entrypoint: ['/bin/sh', '-c'], Cmd: ['echo out; echo err >&2; exit 7'], Env: ['A=image'] },
  })
  const pause = await pushLayers(registry, folder, { name: 'pause', config: { Cmd: ['/pause'] } })
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
    args: [/bin/sh, -c, ${JSON.stringify(LOOP)}]
    logs: allow
    exec:
      - [/bin/cat, /etc/motd]
`
  const initdata = encodeInitdata({
    verifier: undefined,
    registryCaPem: [registry.caPem],
    imagePolicyResource: undefined,
    registryCredentialsResource: undefined,
    policyYaml,
    tenantKeyJwk: undefined,
  })
  const { namespace } = await startNetwork(t, { folder, ports: [registry.port] })
  const state = join(folder, 'node')
  const containerd = await TestContainerd.start(t, {
    folder: join(folder, 'containerd'),
    namespace,
    registry,
    pauseImage: pause.reference,
    socket: join(state, 'node.sock'),
    daemon: [
      process.execPath,
      MAIN,
      'node',
      'serve',
      '--state',
      state,
      '--socket',
      join(state, 'node.sock'),
      '--shim-sockets',
      join(folder, 's'),
      '--platform',
      'none',
      '--accel',
      'tcg',
    ],
  })
  return { kubelet: new Kubelet(t, containerd), containerd, image: pushed.reference, initdata }
}
