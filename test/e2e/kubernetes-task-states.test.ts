/**
 * The task service as containerd calls it: every call in every state of a task, answered as containerd's own shim answers
 * it. Both shims get the same calls from the same client; a container of each goes once through its states.
 */
import { create } from '@bufbuild/protobuf'
import { type Any, AnySchema } from '@bufbuild/protobuf/wkt'
import test from 'ava'
import { Status, Task } from '#host-shim/containerd/gen/task_pb'
import { type Cluster, startCluster } from '../fixtures/kubernetes/cluster.ts'
import { prepare, RawShim, type TaskMethod, type Word } from '../fixtures/kubernetes/raw-shim.ts'
import { FileScope } from '../fixtures/kubernetes/scope.ts'

type Side = 'caisson' | 'runc'
/** `-`: the call that leads to the next state, or that would change this one. */
type Row = readonly (Word | '-')[]

const SIGCONT = 18
const SIGKILL = 9
const WAITS_MS = 1000
const PATIENCE_MS = 300_000

const [ok, waits, none, no] = ['ok', 'waits', 'notFound', 'failedPrecondition'] as const
const STATES = ['unknown', 'created', 'running', 'paused', 'stopped', 'deleted'] as const
const TASK = {
  state: [none, ok, ok, ok, ok, none],
  pids: [none, ok, ok, ok, ok, none],
  stats: [none, ok, ok, ok, ok, none],
  connect: [none, ok, ok, ok, ok, none],
  update: [none, ok, ok, ok, no, none],
  wait: [none, waits, waits, waits, ok, none],
  closeIO: [none, ok, ok, ok, ok, none],
  resizePty: [none, ok, ok, ok, ok, none],
  checkpoint: [none, 'unimplemented', 'unimplemented', 'unimplemented', 'unimplemented', none],
  shutdown: [ok, ok, ok, ok, ok, ok],
  kill: [none, ok, ok, ok, none, none],
  exec: [none, no, '-', no, no, none],
  start: [none, '-', no, no, no, none],
  pause: [none, no, '-', no, no, none],
  resume: [none, no, no, '-', no, none],
  delete: [none, '-', no, no, '-', none],
  'state of an unknown exec': [none, none, none, none, none, none],
  'start of an unknown exec': [none, none, none, none, none, none],
  'kill of an unknown exec': [none, none, none, none, none, none],
  'wait of an unknown exec': [none, none, none, none, none, none],
  'resizePty of an unknown exec': [none, none, none, none, none, none],
  'closeIO of an unknown exec': [none, none, none, none, none, none],
  'delete of an unknown exec': [none, none, none, none, none, none],
} as const satisfies Readonly<Record<string, Row>>

const EXEC_STATES = ['added', 'running', 'stopped', 'deleted'] as const
const EXEC = {
  state: [ok, ok, ok, none],
  wait: [waits, waits, ok, none],
  exec: ['alreadyExists', 'alreadyExists', '-', '-'],
  kill: [no, ok, none, none],
  start: ['-', no, no, none],
  closeIO: [ok, ok, ok, none],
  resizePty: [ok, ok, no, none],
  delete: ['-', no, '-', none],
} as const satisfies Readonly<Record<string, Row>>

const SANDBOX = {
  state: [ok],
  pids: [ok],
  stats: [ok],
  connect: [ok],
  update: [ok],
  wait: [waits],
  closeIO: [ok],
  resizePty: [ok],
  checkpoint: ['unimplemented'],
  shutdown: [ok],
  kill: [ok],
  start: [no],
  resume: [no],
  delete: [no],
} as const satisfies Readonly<Record<string, Row>>

/** Where containerd's own shim answers another way, with the reason for ours. */
const DIFFERENT: Readonly<Record<string, Word>> = {
  // A containerd that comes back asks so whether somebody still has the task, and removes what nobody has.
  'task unknown connect': 'ok',
  'task deleted connect': 'ok',
  // No policy could say what may run in a container before its own first process.
  'task created exec': 'ok',
}

const scope = new FileScope()
let cluster: Cluster
const answers = new Map<Side, ReadonlyMap<string, Word>>()

test.before(async (t) => {
  t.timeout(1_200_000)
  const policy = (image: string): string =>
    `  - { name: loop, image: ${image}, args: [/bin/sleep, "12345"], exec: [[/bin/sleep, "77"]], signals: [${SIGCONT}], max: 2 }`
  cluster = await startCluster(scope, policy)
  for (const { reference } of [cluster.image, cluster.other]) await cluster.kubelet.pull(reference)
  for (const side of ['caisson', 'runc'] as const) answers.set(side, await life(side))
})
test.after.always(() => scope.end())

test.serial('each call of containerd is answered in each state of a task as its own shim would', (t) => {
  const expected = Object.fromEntries([
    ...rows('task', STATES, TASK),
    ...rows('exec', EXEC_STATES, EXEC),
    ...rows('sandbox', ['running'], SANDBOX),
    ['task created create', 'alreadyExists'],
    ['task created delete', 'ok'],
  ])
  t.deepEqual(Object.fromEntries(answers.get('caisson') ?? []), expected)
  const others = answers.get('runc') ?? new Map<string, Word>()
  for (const [place, ours] of Object.entries(expected)) {
    const theirs = others.get(place)
    // Many of its errors have no class: then it is enough that there is one.
    const same = theirs === ours || (theirs === 'unknown' && ours !== 'ok' && ours !== 'waits')
    t.true(same || theirs === DIFFERENT[place], `${place}: ${ours}, runc ${theirs ?? 'was not asked'}`)
  }
})

function rows(kind: string, states: readonly string[], table: Readonly<Record<string, Row>>): [string, Word][] {
  return Object.entries(table).flatMap(([call, row]) =>
    row.flatMap((word, index): [string, Word][] =>
      word === '-' ? [] : [[`${kind} ${states[index] ?? ''} ${call}`, word]],
    ),
  )
}

/** Every answer of one side, by kind, state and call. */
async function life(side: Side): Promise<ReadonlyMap<string, Word>> {
  const { kubelet, containerd, image, other, initdata } = cluster
  const pod = await kubelet.runPod({ name: side, handler: side, ...(side === 'caisson' ? { initdata } : {}) })
  const { reference } = side === 'caisson' ? image : other
  const container = await pod.create('loop', reference, { command: ['/bin/sleep', '12345'] })
  const shim = RawShim.connect(scope, containerd, pod)
  const seen = new Map<string, Word>()
  // runc keeps its containers in one place for all of this machine.
  const [id, secondId] = [`task-${process.pid}`, `second-${process.pid}`]
  scope.teardown(async () => {
    for (const left of [id, secondId]) {
      await shim.answer('kill', { id: left, signal: SIGKILL })
      await shim.answer('delete', { id: left })
    }
  })
  const made = await prepare(containerd, container, id)
  const { bundle, rootfs } = made
  const spec = specOf('Process', { ...made.process, args: ['/bin/sleep', '77'] })

  const ask = async (kind: string, state: string, table: Readonly<Record<string, Row>>, index: number) => {
    for (const [call, row] of Object.entries(table)) {
      const expected = row[index] ?? '-'
      if (expected === '-') continue
      const [name = ''] = call.split(' ')
      const ofTask = name === 'exec' ? `in-${state}` : call.endsWith('unknown exec') ? 'nobody' : ''
      const execId = kind === 'exec' ? 'exec' : ofTask
      const request = {
        id: kind === 'sandbox' ? pod.id : id,
        execId,
        ...(name === 'kill' ? { signal: SIGCONT } : {}),
        ...(name === 'exec' ? { spec } : {}),
        ...(name === 'checkpoint' ? { path: containerd.path('checkpoint') } : {}),
        ...(name === 'update' ? { resources: specOf('LinuxResources', { cpu: { shares: 512 } }) } : {}),
        ...(name === 'closeIO' ? { stdin: true } : {}),
        ...(name === 'resizePty' ? { width: 80, height: 24 } : {}),
      }
      const timeoutMs = expected === 'waits' ? WAITS_MS : PATIENCE_MS
      seen.set(`${kind} ${state} ${call}`, await shim.answer(name as TaskMethod, request, timeoutMs))
    }
  }
  const task = async (state: (typeof STATES)[number]): Promise<void> => {
    await ask('task', state, TASK, STATES.indexOf(state))
    const status = { created: Status.CREATED, running: Status.RUNNING, paused: Status.PAUSED, stopped: Status.STOPPED }
    if (state === 'unknown' || state === 'deleted') return
    const found = await shim.call(Task.method.state, { id })
    if (found.status !== status[state]) throw new Error(`${side}: ${state}, and its status is ${found.status}`)
  }
  const exec = (state: (typeof EXEC_STATES)[number]) => ask('exec', state, EXEC, EXEC_STATES.indexOf(state))
  const ended = async (execId: string): Promise<void> => {
    const { exitStatus } = await shim.call(Task.method.wait, { id, execId }, PATIENCE_MS)
    if (exitStatus !== 128 + SIGKILL) throw new Error(`${side}: exit status ${exitStatus}`)
  }

  await task('unknown')
  await shim.call(Task.method.create, { id, bundle, rootfs: [...rootfs] })
  await task('created')
  await shim.call(Task.method.start, { id })
  await task('running')

  await shim.call(Task.method.exec, { id, execId: 'exec', spec })
  await exec('added')
  await shim.call(Task.method.start, { id, execId: 'exec' })
  await exec('running')
  await shim.call(Task.method.kill, { id, execId: 'exec', signal: SIGKILL })
  await ended('exec')
  await exec('stopped')
  await shim.call(Task.method.delete, { id, execId: 'exec' })
  await exec('deleted')
  // Its place is free again; and one that was never started can be deleted.
  await shim.call(Task.method.exec, { id, execId: 'exec', spec })
  await shim.call(Task.method.delete, { id, execId: 'exec' })

  await shim.call(Task.method.pause, { id })
  await task('paused')
  await shim.call(Task.method.resume, { id })
  await shim.call(Task.method.kill, { id, signal: SIGKILL })
  await ended('')
  await task('stopped')
  await shim.call(Task.method.delete, { id })
  await task('deleted')

  const second = { id: secondId, ...(await prepare(containerd, container, secondId)) }
  const wish = { id: second.id, bundle: second.bundle, rootfs: [...second.rootfs] }
  await shim.call(Task.method.create, wish)
  seen.set('task created create', await shim.answer('create', wish))
  // As containerd ends a task that it could not start.
  await shim.call(Task.method.kill, { id: second.id, signal: SIGKILL })
  await shim.call(Task.method.wait, { id: second.id })
  seen.set('task created delete', await shim.answer('delete', { id: second.id }))

  await ask('sandbox', 'running', SANDBOX, 0)
  const { status } = await shim.call(Task.method.state, { id: pod.id })
  if (status !== Status.RUNNING) throw new Error(`${side}: the sandbox has status ${status}`)
  await pod.remove()
  return seen
}

function specOf(type: 'Process' | 'LinuxResources', value: object): Any {
  const typeUrl = `types.containerd.io/opencontainers/runtime-spec/1/${type}`
  return create(AnySchema, { typeUrl, value: new TextEncoder().encode(JSON.stringify(value)) })
}
