/** Pods on nodes that `caisson node install` made. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { buildGuest } from '#guest/build/build'
import { GrpcClient } from '#host-shim/containerd/grpc'
import { PLACEHOLDER_IMAGE } from '#host-shim/containerd/placeholder'
import { encodeInitdata } from '#protocol/initdata'
import { shellLayers } from '../component/guest/shell-image.ts'
import { pushLayers } from '../component/image/fixtures/image.ts'
import { startRegistry } from '../component/image/fixtures/registry.ts'
import type { Release } from '../component/node-install/containerds.ts'
import { TestNode } from '../component/node-install/node.ts'
import { ContainerState, ImageService, NamespaceMode, RuntimeService } from '../fixtures/cri/gen/cri_pb.ts'
import { GATEWAY, SUBNET, startNetwork } from '../fixtures/kubernetes/network.ts'

const LONG_MS = 10 * 60_000
/** As kubelets say it of pods without `shareProcessNamespace`. */
const OWN_PROCESSES = { securityContext: { namespaceOptions: { pid: NamespaceMode.CONTAINER } } }

// The two ways of configuration: one snapshotter for all runtimes, and one for each.
for (const release of ['1.6', '2'] as const) {
  test.serial(
    `a pod runs on a node that node install made, with containerd ${release}, and none of its layers is fetched`,
    async (t) => {
      await runsPod(t, release)
    },
  )
}

async function runsPod(t: ExecutionContext, release: Release): Promise<void> {
  await buildGuest()
  const node = await TestNode.make(t, release)
  const registry = await startRegistry(t, node.path('registry'))
  const image = await pushLayers(registry, node.root, {
    name: 'team/web',
    layers: shellLayers(),
    config: { Entrypoint: ['/bin/sh', '-c'], Cmd: ['echo from the guest; exit 7'] },
  })
  const pause = await pushLayers(registry, node.root, {
    name: 'pause',
    config: { Cmd: ['/pause'] },
  })
  operatorsNetwork(node, registry, pause.reference)
  const { namespace } = await startNetwork(t, { folder: node.root, ports: [registry.port] })
  const images = ['--guest-image', `${registry.host}/team/`]
  const install = () => node.caisson('install', '--platform', 'none', '--accel', 'tcg', ...images)
  const installed = await install()
  t.is(installed.code, 0, installed.stderr)
  await node.startDaemon()
  await node.startContainerd(namespace)
  const checked = await node.caisson('check', '--platform', 'none')
  t.is(checked.code, 0, checked.stdout)
  // The image that stands for sealed ones: imported by the daemon as soon as containerd ran, and by every installation.
  const sealed = (...words: readonly string[]): string => node.ctr('--namespace', 'k8s.io', 'images', ...words)
  while (!sealed('ls', '--quiet').includes(PLACEHOLDER_IMAGE)) await new Promise((resolve) => setTimeout(resolve, 100))
  sealed('rm', PLACEHOLDER_IMAGE)
  t.regex((await install()).stdout, /nothing to change/)
  t.true(sealed('ls', '--quiet').includes(PLACEHOLDER_IMAGE))

  using cri = new GrpcClient(node.address)
  const options = { timeoutMs: LONG_MS }
  const policyYaml = `
apiVersion: caisson/v1
kind: WorkloadPolicy
imagePolicy: { default: [ { type: insecureAcceptAnything } ] }
containers:
  - { name: web, image: "${image.reference}", logs: allow }
`
  const initdata = encodeInitdata({
    verifier: undefined,
    registryCaPem: [registry.caPem],
    imagePolicyResource: undefined,
    registryCredentialsResource: undefined,
    policyYaml,
    tenantKeyJwk: undefined,
  })
  const config = {
    metadata: { name: 'pod', uid: 'uid', namespace: 'default', attempt: 0 },
    hostname: 'pod',
    logDirectory: node.path('logs'),
    dnsConfig: { servers: [GATEWAY] },
    annotations: {
      'caisson.dev/initdata': Buffer.from(initdata).toString('base64'),
      'io.containerd.cri.runtime-handler': 'caisson',
    },
    linux: OWN_PROCESSES,
  }
  const { podSandboxId } = await cri.unary(
    RuntimeService.method.runPodSandbox,
    { config, runtimeHandler: 'caisson' },
    options,
  )
  t.teardown(() => removePod(node, podSandboxId))
  await cri.unary(ImageService.method.pullImage, { image: { image: image.reference }, sandboxConfig: config }, options)
  const web = { metadata: { name: 'web' }, image: { image: image.reference }, logPath: 'web.log', linux: OWN_PROCESSES }
  const request = { podSandboxId, config: web, sandboxConfig: config }
  const { containerId } = await cri.unary(RuntimeService.method.createContainer, request, options)
  await cri.unary(RuntimeService.method.startContainer, { containerId }, options)
  for (const deadline = Date.now() + LONG_MS; ; ) {
    const { status } = await cri.unary(RuntimeService.method.containerStatus, { containerId }, options)
    if (status?.state === ContainerState.CONTAINER_EXITED) {
      t.is(status.exitCode, 7)
      break
    }
    t.true(Date.now() < deadline)
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  t.regex(readFileSync(node.path('logs/web.log'), 'utf8'), /stdout F from the guest/)
  const held = node.ctr('--namespace', 'k8s.io', 'content', 'ls', '--quiet')
  t.deepEqual(
    image.layers.filter(({ digest }) => held.includes(digest)),
    [],
  )
  // An uninstallation does not take the ground from under a pod.
  t.regex((await node.caisson('uninstall')).stderr, /ERR_NODE_BUSY/)
  await removePod(node, podSandboxId)
  const { stdout } = await node.caisson('uninstall')
  t.regex(stdout, /as it was before/)
  // The daemon still runs, and keeps the image that stands for sealed ones; what takes it back is said, and works.
  const [, words = ''] = /next: ctr (.*images rm .*)/.exec(stdout) ?? []
  await node.stopDaemon()
  node.ctr(...words.split(' '))
  t.false(node.ctr('--namespace', 'k8s.io', 'images', 'ls', '--quiet').includes('caisson.dev'))
}

async function removePod(node: TestNode, podSandboxId: string): Promise<void> {
  using cri = new GrpcClient(node.address)
  await cri.unary(RuntimeService.method.stopPodSandbox, { podSandboxId }, { timeoutMs: LONG_MS }).catch(() => undefined)
  await cri
    .unary(RuntimeService.method.removePodSandbox, { podSandboxId }, { timeoutMs: LONG_MS })
    .catch(() => undefined)
}

/** What an operator sets up beside containerd: CNI, and a registry with a CA of its own. */
function operatorsNetwork(
  node: TestNode,
  registry: { host: string; port: number; caFile: string },
  pause: string,
): void {
  const certificates = node.path(`certs.d/${registry.host}`)
  for (const folder of [certificates, node.path('cni')]) mkdirSync(folder, { recursive: true })
  writeFileSync(
    join(certificates, 'hosts.toml'),
    `server = "https://${registry.host}"\n[host."https://127.0.0.1:${registry.port}"]\n  capabilities = ["pull", "resolve"]\n  ca = "${registry.caFile}"\n`,
  )
  const ipam = {
    type: 'host-local',
    ranges: [[{ subnet: SUBNET }]],
    routes: [{ dst: '0.0.0.0/0' }],
    dataDir: node.path('ipam'),
  }
  writeFileSync(
    node.path('cni/10-test.conflist'),
    JSON.stringify({
      cniVersion: '0.4.0',
      name: 'test',
      plugins: [{ type: 'bridge', bridge: 'cni0', isGateway: true, ipam }],
    }),
  )
  const text = readFileSync(node.config, 'utf8').replace(
    /sandbox_image = .*/,
    `sandbox_image = "${pause}"
netns_mounts_under_state_dir = true
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "${node.path('cni')}"
[plugins."io.containerd.grpc.v1.cri".registry]
config_path = "${node.path('certs.d')}"`,
  )
  writeFileSync(node.config, text)
}
