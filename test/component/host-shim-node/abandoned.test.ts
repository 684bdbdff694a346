/** Pods whose containerd is gone, as their daemons and relays live through it; no VM is booted. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { NodeDaemon } from '#host-shim/node/node-daemon'
import { findProcesses, isSameProcess } from '#host-shim/pod/process-identity'
import { CAISSON_POD, CAISSON_SHIM } from '#native/host/index'

const OFTEN_MS = 200
const NEVER_MS = 2 ** 30
const SANDBOX = {
  ociVersion: '1.0.2',
  annotations: { 'io.kubernetes.cri.container-type': 'sandbox', 'io.kubernetes.cri.sandbox-id': '' },
}

test.serial('a pod that containerd began and forgot is removed, also by a daemon that came later', async (t) => {
  const root = mkdtempSync(join(tmpdir(), 'ca-'))
  t.teardown(() => rmSync(root, { recursive: true, force: true }))
  const first = await daemon(root, NEVER_MS)
  await startShim(t, root, `forgotten-${process.pid}`)
  const [relay] = await findProcesses(root, (words) => words.includes(`forgotten-${process.pid}`))
  t.truthy(relay)
  const path = join(root, 'n/records', `forgotten-${process.pid}.json`)
  while (!readFileSync(path, 'utf8').includes(`"pid":${relay?.pid}`))
    await new Promise((resolve) => setTimeout(resolve, 20))
  await first[Symbol.asyncDispose]()
  // The relay waits for the next daemon.
  t.true(relay !== undefined && (await isSameProcess(relay)))
  await using _second = await daemon(root, OFTEN_MS)
  while (relay !== undefined && (await isSameProcess(relay))) await new Promise((resolve) => setTimeout(resolve, 20))
  t.deepEqual(readdirSync(join(root, 'n/records')), [])
  t.deepEqual(existsSync(join(root, 's')) ? readdirSync(join(root, 's')) : [], [])
})

function daemon(root: string, abandonedMs: number): Promise<NodeDaemon> {
  const state = join(root, 'n')
  return NodeDaemon.start({
    stateRoot: state,
    socket: join(state, 'node.sock'),
    shimSocketDir: join(root, 's'),
    podProgram: CAISSON_POD,
    platform: 'none',
    accelerator: 'tcg',
    guest: () => Promise.reject(new Error('no pod is booted here')),
    tpmCa: () => Promise.reject(new Error('no pod is booted here')),
    scratchMib: 64,
    kubeletRoot: join(root, 'kubelet'),
    abandonedMs,
    log: () => undefined,
  })
}

/** As containerd starts a shim, up to the point at which it would ask for the sandbox. */
async function startShim(t: ExecutionContext, root: string, id: string): Promise<void> {
  const shim = join(root, 'bin/containerd-shim-caisson-v2')
  const bundle = join(root, 'bundles', id)
  for (const folder of ['bin', 'etc/caisson', `bundles/${id}`]) mkdirSync(join(root, folder), { recursive: true })
  copyFileSync(CAISSON_SHIM, shim)
  writeFileSync(join(root, 'etc/caisson/shim.conf'), `socket ${join(root, 'n/node.sock')}\n`)
  writeFileSync(join(bundle, 'config.json'), JSON.stringify(SANDBOX))
  const words = [
    '-namespace',
    'k8s.io',
    '-address',
    join(root, 'c.sock'),
    '-publish-binary',
    'true',
    '-id',
    id,
    'start',
  ]
  const child = spawn(shim, words, {
    cwd: bundle,
    env: { ...process.env, TTRPC_ADDRESS: join(root, 'c.sock.ttrpc') },
    stdio: 'ignore',
  })
  const [code] = (await once(child, 'exit')) as [number | null]
  t.is(code, 0)
}
