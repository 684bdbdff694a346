/** Start, failure and end of a pod with caisson-pod, QEMU and swtpm, and a guest of a hundred bytes in place of Linux. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { access, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import test, { type ExecutionContext } from 'ava'
import { connectPod, listPods, stopPod } from '#host-shim/pod/control'
import { type PodStage, type StartPodOptions, startPod } from '#host-shim/pod/pod'
import type { PodPlan } from '#host-shim/pod/pod-plan'
import { findPodProcesses, isSameProcess, type ProcessIdentity } from '#host-shim/pod/process-identity'
import { podPaths, reconcilePods } from '#host-shim/pod/state-dir'
import { CAISSON_POD } from '#native/host/index'
import { type Ending, tinyKernel } from '#test/fixtures/tiny-kernel'
import { BootError } from '#vmm/boot-watch'
import { createTpmCa } from '#vmm/swtpm'

interface Bench {
  readonly root: string
  readonly plan: PodPlan
  readonly options: StartPodOptions
}

async function bench(t: ExecutionContext, kernel: { text?: string; ending?: Ending } = {}): Promise<Bench> {
  const root = await mkdtemp(join(tmpdir(), 'pod-'))
  t.teardown(async () => {
    for (const { id } of await listPods(root)) await stopPod(root, id, { graceMs: 0 })
    await rm(root, { recursive: true, force: true })
  })
  await writeFile(
    join(root, 'kernel'),
    tinyKernel({ text: kernel.text ?? 'caisson: init-start\r\n', ending: kernel.ending ?? 'halt' }),
  )
  await writeFile(join(root, 'root.img'), new Uint8Array(512))
  return {
    root,
    plan: {
      id: 'p',
      platform: 'none',
      accelerator: 'tcg',
      guest: { kernel: join(root, 'kernel'), root: join(root, 'root.img'), commandLine: 'quiet' },
      vcpus: 1,
      memoryMib: 64,
      scratchMib: 16,
      initdata: new TextEncoder().encode('version = "0.1.0"\n'),
      network: 'user',
    },
    options: { stateRoot: root, podProgram: CAISSON_POD },
  }
}

/** Starts a pod in a process of its own; resolves when it reached `stage`. */
async function startOwner(t: ExecutionContext, { plan, options }: Bench, stage: PodStage) {
  const script = fileURLToPath(new URL('fixtures/pod-owner.ts', import.meta.url))
  const owner = spawn(process.execPath, [script, JSON.stringify({ plan, options })], {
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  t.teardown(() => owner.kill('SIGKILL'))
  for await (const line of createInterface({ input: owner.stdout })) if (line === stage) break
  return owner
}

async function allGone(processes: readonly ProcessIdentity[]): Promise<void> {
  for (const identity of processes) {
    while (await isSameProcess(identity)) await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

test('a pod whose VM ends in the kernel says so, and leaves no file and no process', async (t) => {
  const { root, plan, options } = await bench(t, { text: '', ending: 'reset' })
  const stages: PodStage[] = []
  const keep = join(root, 'console.txt')
  const start = startPod(plan, { ...options, onStage: (stage) => stages.push(stage), keepConsoleLog: keep })
  const error = await t.throwsAsync(start, { instanceOf: BootError, code: 'ERR_VM_EXITED' })
  t.is(error?.stage, 'kernel')
  t.deepEqual(stages, ['disks', 'vmm', 'kernel'])
  t.deepEqual(await readdir(join(root, 'pods')), [])
  t.deepEqual(await findPodProcesses(podPaths(root, 'p').directory), [])
  await t.notThrowsAsync(access(keep))
})

test('a boot that hangs is ended, with the stage named', async (t) => {
  const { root, plan, options } = await bench(t)
  const error = await t.throwsAsync(startPod(plan, { ...options, limits: { init: 200 } }), { instanceOf: BootError })
  t.is(error?.code, 'ERR_BOOT_STALLED')
  t.is(error?.stage, 'init')
  t.deepEqual(await readdir(join(root, 'pods')), [])
})

test('an interrupted start leaves nothing', async (t) => {
  const { root, plan, options } = await bench(t)
  const abort = new AbortController()
  const onStage = (stage: PodStage) => {
    if (stage === 'init') abort.abort(new Error('interrupted'))
  }
  await t.throwsAsync(startPod(plan, { ...options, signal: abort.signal, onStage }), { message: 'interrupted' })
  t.deepEqual(await readdir(join(root, 'pods')), [])
})

test('on platform tpm a start that fails in the firmware takes the software TPM along', async (t) => {
  const { root, plan, options } = await bench(t)
  const firmware = join(root, 'firmware.fd')
  await writeFile(firmware, new Uint8Array(64 * 1024).fill(0xf4))
  const tpmCa = await createTpmCa(join(root, 'ca'))
  const start = startPod(
    { ...plan, platform: 'tpm', guest: { ...plan.guest, firmware }, tpmCa },
    { ...options, limits: { firmware: 200 } },
  )
  const error = await t.throwsAsync(start, { instanceOf: BootError, code: 'ERR_BOOT_STALLED' })
  t.is(error?.stage, 'firmware')
  t.deepEqual(await readdir(join(root, 'pods')), [])
  t.deepEqual(await findPodProcesses(podPaths(root, 'p').directory), [])
})

test('platform tpm without a CA is refused, and the id is free again', async (t) => {
  const { root, plan, options } = await bench(t)
  await t.throwsAsync(startPod({ ...plan, platform: 'tpm' }, options), { code: 'ERR_VM_PLAN' })
  t.deepEqual(await readdir(join(root, 'pods')), [])
})

test('a caisson-pod that is not built is told as such', async (t) => {
  const { plan, options } = await bench(t)
  await t.throwsAsync(startPod(plan, { ...options, podProgram: '/absent/caisson-pod' }), {
    code: 'ERR_PROGRAM_MISSING',
  })
})

test('a caisson-pod of another version is not followed', async (t) => {
  const { root, plan, options } = await bench(t)
  const podProgram = join(root, 'caisson-pod')
  await writeFile(podProgram, '#!/bin/sh\necho \'{"event":"from-the-future"}\'\nexec sleep 60\n', { mode: 0o755 })
  const error = await t.throwsAsync(startPod(plan, { ...options, podProgram }), { code: 'ERR_POD_PROCESS' })
  t.regex(error?.message ?? '', /from-the-future/)
  t.deepEqual(await readdir(join(root, 'pods')), [])
})

test('QEMU’s own words about a file that is missing reach the operator', async (t) => {
  const { root, plan, options } = await bench(t)
  const guest = { ...plan.guest, kernel: join(root, 'absent') }
  const error = await t.throwsAsync(startPod({ ...plan, guest }, options), { code: 'ERR_VMM_FAILED' })
  t.regex(error?.message ?? '', /absent/)
})

test('an owner that is killed takes its VM along; reconcile removes the rest, once', async (t) => {
  const one = await bench(t)
  const owner = await startOwner(t, one, 'init')
  const { directory } = podPaths(one.root, 'p')
  const processes = await findPodProcesses(directory)
  t.is(processes.length, 2)
  t.deepEqual(
    (await listPods(one.root)).map(({ state }) => state),
    ['running'],
  )
  t.deepEqual(await reconcilePods(one.root), [])
  owner.kill('SIGKILL')
  await once(owner, 'exit')
  await allGone(processes)
  t.deepEqual(
    (await listPods(one.root)).map(({ state }) => state),
    ['orphaned'],
  )
  t.deepEqual(await reconcilePods(one.root), ['p'])
  t.deepEqual(await readdir(join(one.root, 'pods')), [])
})

test('a caisson-pod that is killed takes QEMU along, and the owner tidies up', async (t) => {
  const { root, plan, options } = await bench(t)
  const { directory } = podPaths(root, 'p')
  let processes: readonly ProcessIdentity[] = []
  const onStage = (stage: PodStage) => {
    if (stage !== 'init') return
    void findPodProcesses(directory).then(async (found) => {
      processes = found
      for (const { pid } of found) {
        const name = await readFile(`/proc/${pid}/comm`, 'utf8')
        if (name.trim() === 'caisson-pod') process.kill(pid, 'SIGKILL')
      }
    })
  }
  const error = await t.throwsAsync(startPod(plan, { ...options, onStage, limits: { init: 20_000 } }), {
    instanceOf: BootError,
  })
  t.is(error?.code, 'ERR_VM_EXITED')
  t.is(processes.length, 2)
  await allGone(processes)
  t.deepEqual(await readdir(join(root, 'pods')), [])
})

test('on platform tpm an owner that is killed takes the software TPM along too', async (t) => {
  const one = await bench(t)
  const firmware = join(one.root, 'firmware.fd')
  await writeFile(firmware, new Uint8Array(64 * 1024).fill(0xf4))
  const tpmCa = await createTpmCa(join(one.root, 'ca'))
  const plan: PodPlan = { ...one.plan, platform: 'tpm', guest: { ...one.plan.guest, firmware }, tpmCa }
  const owner = await startOwner(t, { ...one, plan }, 'firmware')
  const processes = await findPodProcesses(podPaths(one.root, 'p').directory)
  t.is(processes.length, 3)
  owner.kill('SIGKILL')
  await once(owner, 'exit')
  await allGone(processes)
  t.deepEqual(await reconcilePods(one.root), ['p'])
})

test('another process stops a pod whose guest does not answer', async (t) => {
  const one = await bench(t)
  const owner = await startOwner(t, one, 'init')
  const ended = once(owner, 'exit')
  await t.throwsAsync(connectPod(one.root, 'p'), { code: 'ERR_VSOCK_CONNECT' })
  await stopPod(one.root, 'p', { graceMs: 100 })
  t.deepEqual(await listPods(one.root), [])
  await ended
})
