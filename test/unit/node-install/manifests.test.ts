/** Manifests and chart under deploy/: what they name exists, and is what the code calls it. */
import { accessSync, constants, readFileSync } from 'node:fs'
import test from 'ava'
import { monitor } from '#cli/commands/monitor'
import { nodeInstall } from '#cli/commands/node-install'
import { verifierServe } from '#cli/commands/verifier-serve'
import { STORE_KEY_VARIABLE } from '#cli/store-key'
import { nodeLayout, RUNTIME_HANDLER } from '#host-shim/install/node-layout'
import { NODE_LABEL, podOverhead, runtimeClassYaml } from '#host-shim/install/overhead'
import { valueAt } from '#host-shim/install/toml-edit'
import { monitorSocketIn } from '#host-shim/node/monitor-socket'
import { GUEST_OVERHEAD_MIB, vmSize } from '#host-shim/pod/pod-plan'
import { chartValues, DEPLOY, type Manifest, manifestsOf, plainManifests, renderTemplate } from './chart.ts'

const plain = plainManifests()

/** Values under which a template renders. */
const ENABLED: Readonly<Record<string, readonly string[]>> = {
  runtimeclass: [],
  'node-install': [],
  monitor: [],
  'node-uninstall': ['uninstall'],
  'verifier-sqlite': ['verifier', 'sqlite'],
  'verifier-postgresql': ['verifier', 'postgresql'],
}

/** What the image is started with, where a manifest names no script of its own. */
const COMMANDS = [
  { prefix: 'verifier', command: verifierServe },
  { prefix: 'monitor', command: monitor },
]

test('the plain manifests are what the chart makes of its values', (t) => {
  for (const [name, path] of Object.entries(ENABLED)) {
    const namespace = name.startsWith('verifier') ? 'caisson-verifier' : 'caisson-system'
    t.deepEqual(plain.get(name), manifestsOf(renderTemplate(name, valuesWith(path), namespace)), name)
  }
  t.deepEqual([...plain.keys()].toSorted(), [...Object.keys(ENABLED), 'namespaces'].toSorted())
})

test('the chart installs nodes, their monitor and RuntimeClass, and a verifier only when asked to', (t) => {
  const rendered = Object.keys(ENABLED).filter((name) => renderTemplate(name, chartValues(), 'x').trim() !== '')
  t.deepEqual(rendered, ['runtimeclass', 'node-install', 'monitor'])
  const values = { ...chartValues(), node: { enabled: true, arguments: ['--guest-image=registry.example/'] } }
  t.true(renderTemplate('node-install', values, 'x').includes('            - "--guest-image=registry.example/"\n'))
})

test('the overhead of the RuntimeClass is the guest’s part of a VM’s size and the host’s part', (t) => {
  const [runtimeClass] = plain.get('runtimeclass') ?? []
  t.deepEqual(manifestsOf(runtimeClassYaml('kvm')), [runtimeClass])
  const { memoryMib } = podOverhead('kvm')
  t.is(valueAt(runtimeClass, ['overhead', 'podFixed', 'memory']), `${memoryMib}Mi`)
  t.is(valueAt(chartValues(), ['runtimeClass', 'overheadMemory']), `${memoryMib}Mi`)
  t.is(vmSize([{ memoryMib: 100 }]).memoryMib, 100 + GUEST_OVERHEAD_MIB)
  t.true(memoryMib > GUEST_OVERHEAD_MIB)
})

test('pods, installer and RuntimeClass agree on the handler and on the label of nodes', (t) => {
  const [runtimeClass] = plain.get('runtimeclass') ?? []
  t.is(valueAt(runtimeClass, ['handler']), RUNTIME_HANDLER)
  t.is(valueAt(runtimeClass, ['metadata', 'name']), RUNTIME_HANDLER)
  const labelled = { [NODE_LABEL]: 'true' }
  t.deepEqual(valueAt(runtimeClass, ['scheduling', 'nodeSelector']), labelled)
  t.deepEqual(valueAt(plain.get('node-install')?.[0], ['spec', 'template', 'spec', 'nodeSelector']), labelled)
})

test('each selector matches its pods, and each port that is named is one of the container', (t) => {
  for (const [name, manifests] of plain) {
    for (const workload of manifests.filter(({ kind }) => kind === 'Deployment' || kind === 'DaemonSet')) {
      const labels = valueAt(workload, ['spec', 'template', 'metadata', 'labels'])
      t.deepEqual(valueAt(workload, ['spec', 'selector', 'matchLabels']), labels, name)
      for (const service of manifests.filter(({ kind }) => kind === 'Service')) {
        t.deepEqual(valueAt(service, ['spec', 'selector']), labels, name)
      }
      const text = JSON.stringify(workload)
      const ports = (valueAt(containerOf(workload), ['ports']) ?? []) as readonly { name: string }[]
      for (const [, port] of text.matchAll(/"port":"([a-z]+)"/g))
        t.true(
          ports.some((each) => each.name === port),
          name,
        )
    }
  }
})

test('every command of a manifest is in the image, and every argument is an option of that command', (t) => {
  for (const [name, manifests] of plain) {
    for (const workload of manifests.filter(({ kind }) => kind === 'Deployment' || kind === 'DaemonSet')) {
      const container = containerOf(workload)
      for (const [, script] of JSON.stringify(container).matchAll(/\/opt\/caisson-image\/([^"]+)/g)) {
        t.notThrows(() => accessSync(`${DEPLOY}../${script}`, constants.X_OK), script)
      }
      const { options, path } = COMMANDS.find(({ prefix }) => name.startsWith(prefix))?.command ?? nodeInstall
      for (const word of (valueAt(container, ['args']) ?? []) as readonly string[]) {
        const option = /^--([^=]+)/.exec(word)?.[1]
        t.true(option === undefined ? path.split(' ').includes(word) : option in options, `${name}: ${word}`)
      }
    }
  }
  const entry = /ENTRYPOINT \["\/opt\/caisson-image\/([^"]+)"\]/.exec(
    readFileSync(`${DEPLOY}image/Containerfile`, 'utf8'),
  )?.[1]
  t.notThrows(() => accessSync(`${DEPLOY}../${entry}`, constants.X_OK))
})

test('replicas of the verifier take their key and password from secrets, never from arguments', (t) => {
  const workload = plain.get('verifier-postgresql')?.find(({ kind }) => kind === 'Deployment')
  const env = valueAt(containerOf(workload), ['env']) as readonly { name: string; valueFrom?: unknown }[]
  for (const name of [STORE_KEY_VARIABLE, 'PGPASSWORD'])
    t.truthy(env.find((each) => each.name === name)?.valueFrom, name)
  t.is(valueAt(workload, ['spec', 'replicas']), 3)
})

test('the verifier’s pods have no right on their node, and nothing mounts a token', (t) => {
  for (const name of ['verifier-sqlite', 'verifier-postgresql']) {
    const workload = plain.get(name)?.find(({ kind }) => kind === 'Deployment')
    const pod = valueAt(workload, ['spec', 'template', 'spec'])
    t.like(pod, { automountServiceAccountToken: false, securityContext: { runAsNonRoot: true } })
    t.like(valueAt(containerOf(workload), ['securityContext']), {
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      capabilities: { drop: ['ALL'] },
    })
  }
})

test('the monitor’s pods have no right on their node but to ask its daemon for numbers, and listen on no address of the node', (t) => {
  const pod = valueAt(plain.get('monitor')?.[0], ['spec', 'template', 'spec'])
  t.like(pod, { automountServiceAccountToken: false })
  for (const name of ['hostNetwork', 'hostPID', 'hostIPC']) t.is(valueAt(pod, [name]), undefined, name)
  t.like(valueAt(containerOf(plain.get('monitor')?.[0]), ['securityContext']), {
    allowPrivilegeEscalation: false,
    readOnlyRootFilesystem: true,
    capabilities: { drop: ['ALL'] },
  })
  t.is(monitorSocketIn(nodeLayout().stateRoot), '/run/caisson/monitor/monitor.sock')
  t.deepEqual(valueAt(pod, ['volumes']), [
    { name: 'monitor', hostPath: { path: '/run/caisson/monitor', type: 'DirectoryOrCreate' } },
  ])
  const args = valueAt(containerOf(plain.get('monitor')?.[0]), ['args'])
  t.true(Array.isArray(args) && args.includes('--socket=/run/caisson/monitor/monitor.sock'))
})

function containerOf(workload: Manifest | undefined): unknown {
  const containers = valueAt(workload, ['spec', 'template', 'spec', 'containers'])
  return Array.isArray(containers) ? containers[0] : undefined
}

/** The chart's values with one part of it enabled. */
function valuesWith(path: readonly string[]): Readonly<Record<string, unknown>> {
  const values = structuredClone(chartValues())
  let target: Record<string, unknown> = values
  for (const word of path) target = target[word] as Record<string, unknown>
  if (path.length > 0) target.enabled = true
  return values
}
