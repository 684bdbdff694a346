import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { AbandonedWatch } from '#host-shim/node/abandoned'
import type { PodRecord, ProcessStatus, TaskRecord } from '#host-shim/node/pod-record'
import { newProcess, Processes } from '#host-shim/node/processes'

const IO = { terminal: false, stdin: '', stdout: '', stderr: '' }

function task(id: string, bundle: string, status: ProcessStatus = 'running'): TaskRecord {
  const process = { env: [], user: '', workingDir: '' }
  const kind = id === 'pod' ? 'sandbox' : 'container'
  return { ...newProcess(IO), status, id, bundle, kind, process, oomKilled: false, execs: {} }
}

function pod(...tasks: readonly TaskRecord[]): { readonly record: PodRecord; readonly processes: Processes } {
  const record: PodRecord = {
    version: 1,
    sandboxId: 'pod',
    namespace: 'k8s.io',
    bundle: '',
    socket: '',
    containerd: { grpc: '', ttrpc: '' },
    relay: undefined,
    machine: undefined,
    tasks: Object.fromEntries(tasks.map((one) => [one.id, one])),
    events: [],
    answers: [],
    begun: [],
  }
  return { record, processes: new Processes(record) }
}

test('a pod without tasks, or whose bundle is gone, is abandoned at the second look, and only then', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'abandoned-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const empty = pod()
  const creating = task('pod', join(folder, 'begun'), 'creating')
  const begun = pod(creating)
  const left = pod(task('pod', join(folder, 'left'), 'creating'))
  const lost = pod(task('pod', join(folder, 'lost')), task('c', folder))
  const used = pod(task('pod', folder))
  const late = pod()
  const watch = new AbandonedWatch<ReturnType<typeof pod>>()
  const pods = [empty, begun, left, lost, used, late]
  begun.processes.underway.add(creating)
  t.deepEqual(watch.look(pods), { pods: [], containers: [] })
  late.record.tasks.pod = task('pod', folder, 'creating')
  // What this daemon is creating ends with the request for it; what an earlier one left so has none any more.
  t.deepEqual(watch.look(pods).pods, [empty, left, lost])
  begun.processes.underway.delete(creating)
  watch.look(pods)
  t.true(watch.look(pods).pods.includes(begun))
})

test('a container whose bundle containerd has removed is abandoned, and the others of its pod are not', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'abandoned-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const bundle = join(folder, 'c')
  const gone = task('c', bundle, 'stopped')
  const one = pod(task('pod', folder), gone, task('d', folder))
  const watch = new AbandonedWatch<ReturnType<typeof pod>>()
  watch.look([one])
  t.deepEqual(watch.look([one]).containers, [{ pod: one, task: gone }])
  // What is there again between two looks was on its way.
  mkdirSync(bundle)
  t.deepEqual(watch.look([one]).containers, [])
  rmSync(bundle, { recursive: true })
  t.deepEqual(watch.look([one]).containers, [])
})
