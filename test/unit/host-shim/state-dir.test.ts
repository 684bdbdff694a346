import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, mkdtemp, readFile, rm, stat, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { connectPod, listPods, removeOrphan, stopPod } from '#host-shim/pod/control'
import { endProcess, identifyProcess, isSameProcess } from '#host-shim/pod/process-identity'
import { createPodState, isOwned, parsePodRecord, podPaths, reconcilePods, removePod } from '#host-shim/pod/state-dir'

async function stateRoot(t: ExecutionContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'state-'))
  t.teardown(() => rm(directory, { recursive: true, force: true }))
  return directory
}

const pod = { id: 'web', platform: 'none', labels: { image: 'nginx' } } as const

/** The record as a process that is gone would have left it. */
async function orphan(root: string, id: string): Promise<void> {
  const paths = podPaths(root, id)
  const record = await createPodState(paths, { ...pod, id })
  const owner = { ...record.owner, startTicks: record.owner.startTicks + 1 }
  await writeFile(paths.record, JSON.stringify({ ...record, owner }))
}

test('the record is there before anything else, private, and says who owns the pod', async (t) => {
  const paths = podPaths(await stateRoot(t), 'web')
  const record = await createPodState(paths, pod)
  t.deepEqual(parsePodRecord(await readFile(paths.record, 'utf8')), record)
  t.is((await stat(paths.directory)).mode & 0o777, 0o700)
  t.is(record.owner.pid, process.pid)
  t.true(await isOwned(record))
})

test('one id is one pod', async (t) => {
  const paths = podPaths(await stateRoot(t), 'web')
  await createPodState(paths, pod)
  await t.throwsAsync(createPodState(paths, pod), { code: 'ERR_POD_EXISTS' })
})

test('an id cannot leave the state directory', (t) => {
  for (const id of ['', '..', 'a/b', 'A', 'a'.repeat(41), '-a', 'a\0']) {
    t.throws(() => podPaths('/s', id), { code: 'ERR_POD_ID' })
  }
})

test('a damaged record is an error with a code, whatever it holds', async (t) => {
  const record = await createPodState(podPaths(await stateRoot(t), 'web'), pod)
  const text = JSON.stringify(record)
  for (let length = 0; length < text.length; length += 1) {
    t.throws(() => parsePodRecord(text.slice(0, length)), { code: 'ERR_POD_RECORD' })
  }
  const broken = [{ version: 2 }, { owner: { pid: -1, startTicks: 1 } }, { labels: { a: 1 } }, { platform: 'x' }]
  for (const change of broken) {
    t.throws(() => parsePodRecord(JSON.stringify({ ...record, ...change })), { code: 'ERR_POD_RECORD' })
  }
})

test('pods of living owners are kept, pods of dead ones and damaged ones are removed', async (t) => {
  const root = await stateRoot(t)
  await createPodState(podPaths(root, 'alive'), { ...pod, id: 'alive' })
  await orphan(root, 'dead')
  await createPodState(podPaths(root, 'damaged'), { ...pod, id: 'damaged' })
  await writeFile(podPaths(root, 'damaged').record, '{')
  await utimes(podPaths(root, 'damaged').directory, 0, 0)
  t.deepEqual(await reconcilePods(root), ['damaged', 'dead'])
  t.deepEqual(await reconcilePods(root), [])
  t.deepEqual(
    (await listPods(root)).map(({ id, state }) => [id, state]),
    [['alive', 'running']],
  )
})

test('a directory whose record is just being written is left alone', async (t) => {
  const root = await stateRoot(t)
  await mkdir(podPaths(root, 'fresh').directory, { recursive: true })
  t.deepEqual(await reconcilePods(root), [])
})

test('removing a pod twice, or one that never was, is no error', async (t) => {
  const paths = podPaths(await stateRoot(t), 'web')
  await createPodState(paths, pod)
  await removePod(paths)
  await removePod(paths)
  await t.throwsAsync(stat(paths.directory), { code: 'ENOENT' })
})

test('a state root that does not exist holds no pods', async (t) => {
  const root = join(await stateRoot(t), 'absent')
  t.deepEqual(await listPods(root), [])
  t.deepEqual(await reconcilePods(root), [])
})

test('unknown and orphaned pods cannot be reached, and say what to do', async (t) => {
  const root = await stateRoot(t)
  await orphan(root, 'dead')
  await t.throwsAsync(connectPod(root, 'none'), { code: 'ERR_POD_UNKNOWN' })
  await t.throwsAsync(stopPod(root, 'none'), { code: 'ERR_POD_UNKNOWN' })
  const error = await t.throwsAsync(connectPod(root, 'dead'), { code: 'ERR_POD_ORPHANED' })
  t.regex(Reflect.get(error ?? {}, 'hint'), /caisson rm dead/)
  await stopPod(root, 'dead')
  t.deepEqual(await listPods(root), [])
})

test('what a crashed run left is removed; a pod that runs, or is just being made, is left alone', async (t) => {
  const root = await stateRoot(t)
  await orphan(root, 'dead')
  await removeOrphan(root, 'dead')
  await t.throwsAsync(removeOrphan(root, 'dead'), { code: 'ERR_POD_UNKNOWN' })
  await createPodState(podPaths(root, 'alive'), { ...pod, id: 'alive' })
  const error = await t.throwsAsync(removeOrphan(root, 'alive'), { code: 'ERR_POD_RUNNING' })
  t.regex(Reflect.get(error ?? {}, 'hint'), /caisson stop alive/)
  await mkdir(podPaths(root, 'fresh').directory)
  await t.throwsAsync(removeOrphan(root, 'fresh'), { code: 'ERR_POD_RUNNING' })
  t.deepEqual(
    (await listPods(root)).map(({ id }) => id),
    ['alive', 'fresh'],
  )
  await utimes(podPaths(root, 'fresh').directory, 0, 0)
  await removeOrphan(root, 'fresh')
})

test('a pid means a process only together with its start time', async (t) => {
  const child = spawn('sleep', ['60'], { stdio: 'ignore' })
  t.teardown(() => child.kill('SIGKILL'))
  await once(child, 'spawn')
  const identity = await identifyProcess(child.pid ?? 0)
  if (identity === undefined) return t.fail('the child is not known')
  t.true(await isSameProcess(identity))
  const other = { ...identity, startTicks: identity.startTicks + 1 }
  t.false(await isSameProcess(other))
  await endProcess(other, 10)
  t.true(await isSameProcess(identity))
  await endProcess(identity, 5000)
  t.false(await isSameProcess(identity))
})
