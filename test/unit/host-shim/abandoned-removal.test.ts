import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { AbandonedRemoval, removeAbandoned } from '#host-shim/node/abandoned'
import { NodeMetrics } from '#host-shim/node/metrics'
import { NodePod } from '#host-shim/node/node-pod'
import { PodStore, type TaskRecord } from '#host-shim/node/pod-record'
import { newProcess } from '#host-shim/node/processes'
import { RelayControl } from '#host-shim/node/relay-control'

const UNUSED = (): Promise<never> => Promise.reject(new Error('no pod is booted here'))

interface Pod {
  readonly pod: NodePod
  readonly folder: string
  readonly lines: string[]
  /** As the pod's relay does when it finds a daemon. */
  readonly attachRelay: () => Promise<void>
}

function podOf(t: ExecutionContext): Pod {
  const folder = mkdtempSync(join(tmpdir(), 'removal-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const lines: string[] = []
  const path = (name: string): string => join(folder, name)
  const pod = new NodePod(
    {
      version: 1,
      sandboxId: 'pod',
      namespace: 'k8s.io',
      bundle: path('pod'),
      socket: path('pod.sock'),
      containerd: { grpc: path('c.sock'), ttrpc: path('c.ttrpc') },
      relay: undefined,
      machine: undefined,
      tasks: {},
      events: [],
      answers: [],
      begun: [],
    },
    {
      stateRoot: folder,
      socket: path('node.sock'),
      shimSocketDir: folder,
      podProgram: '',
      platform: 'none',
      accelerator: 'tcg',
      guest: UNUSED,
      tpmCa: UNUSED,
      scratchMib: 64,
      kubeletRoot: folder,
      log: (line) => lines.push(line),
    },
    new PodStore(folder),
    new NodeMetrics(),
  )
  const attachRelay = async (): Promise<void> => {
    const server = createServer((socket) => socket.write('ready\n'))
    server.listen(path('relay.sock'))
    await once(server, 'listening')
    const socket = connect(path('relay.sock'))
    t.teardown(() => {
      socket.destroy()
      server.close()
    })
    await pod.attachRelay(new RelayControl(socket, process.pid))
  }
  return { pod, folder, lines, attachRelay }
}

function forgotten(folder: string): TaskRecord {
  const io = { terminal: false, stdin: '', stdout: '', stderr: '' }
  const rest = { process: { env: [], user: '', workingDir: '' }, oomKilled: false, execs: {} }
  return { ...newProcess(io), status: 'running', id: 'c', bundle: join(folder, 'c'), kind: 'container', ...rest }
}

test('a container that is made again before its pod has been taken over is not taken for the abandoned one', async (t) => {
  const { pod, folder, lines, attachRelay } = podOf(t)
  const task = forgotten(folder)
  pod.record.tasks.c = task
  const removal = removeAbandoned(pod, task, (line) => lines.push(line))
  const again = forgotten(folder)
  pod.record.tasks.c = again
  await attachRelay()
  await removal
  t.is(pod.processes.find('c'), again)
  t.deepEqual(lines, [])
})

test('a removal that outlasts the time between two looks is not begun again', async (t) => {
  const one = podOf(t)
  const task = forgotten(one.folder)
  one.pod.record.tasks.pod = { ...forgotten(tmpdir()), id: 'pod', bundle: tmpdir(), kind: 'sandbox' }
  one.pod.record.tasks.c = task
  const empty = podOf(t)
  const lines: string[] = []
  const removal = new AbandonedRemoval({
    end: () => new Promise(() => undefined),
    log: (line) => lines.push(line),
  })
  for (let look = 0; look < 4; look++) removal.look([one.pod, empty.pod])
  await one.attachRelay()
  await new Promise((resolve) => setImmediate(resolve))
  const said = (name: string) => lines.filter((line) => line.includes(`has forgotten ${name}`)).length
  t.deepEqual([said('it'), said('c')], [1, 1], lines.join('\n'))
})
