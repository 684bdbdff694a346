/** What `caisson node gc` takes and what it leaves, on real namespaces, devices and processes. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { joinPodNetwork } from '#host-shim/network/pod-network'
import { collectLeftovers } from '#host-shim/node/leftovers'
import { bootId, identifyProcess, type ProcessIdentity } from '#host-shim/pod/process-identity'

test('a crashed pod leaves process, machine, tap, socket and record, and gc removes each; the living pod beside keeps all', async (t) => {
  const node = makeNode(t)
  const [dead, alive] = [await node.pod('dead'), await node.pod('alive')]
  await end(dead.relay)
  const named = await node.gc({ dryRun: true })
  t.deepEqual(
    named.map(({ kind }) => kind),
    ['process', 'machine', 'network', 'socket', 'record'],
  )
  t.true(dead.isWhole() && alive.isWhole())
  t.deepEqual(await node.gc({ dryRun: false }), named)
  t.false(existsSync(dead.directory) || existsSync(dead.record) || existsSync(dead.socket))
  t.not(dead.tpm.exitCode ?? dead.tpm.signalCode, null)
  t.deepEqual(dead.links(), ['eth0', 'lo'])
  t.deepEqual(dead.filters(), '')
  t.true(alive.isWhole())
  t.deepEqual(await node.gc({ dryRun: false }), [])
})

test('a pod that is just starting has no owner yet, and is left alone', async (t) => {
  const node = makeNode(t)
  mkdirSync(node.path('pods/young'), { recursive: true })
  mkdirSync(node.path('records'), { recursive: true })
  const waiting = { version: 1, sandboxId: 'young', bundle: '/x', socket: '/x', tasks: {}, answers: [], events: [] }
  writeFileSync(node.path('records/young.json'), JSON.stringify(waiting))
  t.deepEqual(await node.gc({ dryRun: false }), [])
  t.deepEqual(
    (await node.gc({ dryRun: false, minAgeMs: 0 })).map(({ kind }) => kind),
    ['machine', 'record'],
  )
})

test('a record that is damaged or was never finished goes when nobody can be starting any more', async (t) => {
  const node = makeNode(t)
  mkdirSync(node.path('records'), { recursive: true })
  const old = new Date(Date.now() - 3_600_000)
  for (const name of ['damaged.json', 'half.json.new']) {
    writeFileSync(node.path(`records/${name}`), '{')
    utimesSync(node.path(`records/${name}`), old, old)
  }
  writeFileSync(node.path('records/young.json'), '{')
  t.is((await node.gc({ dryRun: false })).length, 2)
  t.deepEqual(readdirSync(node.path('records')), ['young.json'])
})

function makeNode(t: ExecutionContext) {
  const root = mkdtempSync(join(tmpdir(), 'gc-'))
  t.teardown(() => rmSync(root, { recursive: true, force: true }))
  const path = (name: string): string => join(root, name)
  return {
    path,
    pod: (name: string) => makePod(t, root, name),
    gc: (options: { dryRun: boolean; minAgeMs?: number }) =>
      collectLeftovers({ stateRoot: root, snapshots: path('snapshots'), ...options }),
  }
}

/** A pod as far as the host sees it: a relay, a software TPM, a namespace with a tap, a socket, and both records. */
async function makePod(t: ExecutionContext, root: string, name: string) {
  const relay = spawn('sleep', ['1000'])
  t.teardown(() => end(relay))
  const owner = await identityOf(relay)
  const directory = join(root, 'pods', name)
  const record = join(root, 'records', `${name}.json`)
  const socket = join(root, `${name}.sock`)
  const bundle = join(root, `bundle-${name}`)
  for (const folder of [join(directory, 'tpm'), join(root, 'records'), bundle]) mkdirSync(folder, { recursive: true })
  const netns = `caisson-gc-${process.pid}-${name}`
  const namespace = `/run/netns/${netns}`
  const ip = (...words: string[]): string => execFileSync('ip', ['-netns', netns, ...words], { encoding: 'utf8' })
  execFileSync('ip', ['netns', 'add', netns])
  t.teardown(() => execFileSync('ip', ['netns', 'delete', netns]))
  ip('link', 'add', 'eth0', 'up', 'type', 'bridge')
  await joinPodNetwork(namespace)
  writeFileSync(
    join(directory, 'record.json'),
    JSON.stringify({
      version: 1,
      id: name,
      platform: 'none',
      createdAtMs: 1,
      bootId: await bootId(),
      owner,
      labels: {},
    }),
  )
  writeFileSync(join(bundle, 'config.json'), JSON.stringify(bundleOf(namespace)))
  writeFileSync(
    record,
    JSON.stringify({ version: 1, sandboxId: name, bundle, socket, relay: owner, tasks: {}, answers: [], events: [] }),
  )
  const server = createServer().listen(socket)
  await once(server, 'listening')
  t.teardown(() => server.close())
  const tpm = spawn('swtpm', [
    'socket',
    '--tpm2',
    '--tpmstate',
    `dir=${directory}/tpm`,
    '--ctrl',
    `type=unixio,path=${directory}/tpm.sock`,
  ])
  t.teardown(() => end(tpm))
  while (!existsSync(join(directory, 'tpm.sock'))) await new Promise((resolve) => setTimeout(resolve, 20))
  const links = (): readonly string[] =>
    (JSON.parse(ip('-json', 'link', 'show')) as { ifname: string }[]).map(({ ifname }) => ifname).toSorted()
  const filters = (): string =>
    execFileSync('nsenter', [`--net=${namespace}`, 'tc', 'filter', 'show', 'dev', 'eth0', 'ingress'], {
      encoding: 'utf8',
      stdio: 'pipe',
    })
  const isWhole = (): boolean =>
    [directory, record, socket].every((path) => existsSync(path)) &&
    tpm.exitCode === null &&
    tpm.signalCode === null &&
    links().includes('caisson0') &&
    filters().includes('mirred')
  return { relay, tpm, directory, record, socket, links, filters, isWhole }
}

async function identityOf(child: ChildProcess): Promise<ProcessIdentity> {
  const identity = await identifyProcess(child.pid ?? 0)
  if (identity === undefined) throw new Error('the process ended')
  return identity
}

function bundleOf(namespace: string) {
  return {
    ociVersion: '1.0.2',
    hostname: 'pod',
    process: { args: ['/pause'], env: [], cwd: '/', terminal: false, user: { uid: 0, gid: 0 } },
    mounts: [],
    annotations: {},
    linux: { namespaces: [{ type: 'network', path: namespace }] },
  }
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const exited = once(child, 'exit')
  child.kill('SIGKILL')
  await exited
}
