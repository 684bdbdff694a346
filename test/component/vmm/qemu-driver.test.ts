/** The driver with the real QEMU, and a guest of a hundred bytes. */
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { type Ending, tinyKernel } from '#test/fixtures/tiny-kernel'
import { spawnVmProcess } from '#test/fixtures/vm-process'
import { BootError, type BootWatch, watchBoot } from '#vmm/boot-watch'
import { AdoptedVm } from '#vmm/qemu/adopted-vm'
import { qemu } from '#vmm/qemu/driver'
import type { Vm, VmPlan } from '#vmm/types'

async function plan(t: ExecutionContext, kernel: { text: string; ending: Ending }): Promise<VmPlan> {
  const runDir = await mkdtemp(join(tmpdir(), 'vmm-'))
  t.teardown(() => rm(runDir, { recursive: true, force: true }))
  await writeFile(join(runDir, 'kernel'), tinyKernel(kernel))
  await writeFile(join(runDir, 'root.img'), new Uint8Array(512))
  return {
    id: 'test',
    platform: 'none',
    accelerator: 'tcg',
    kernel: join(runDir, 'kernel'),
    commandLine: 'quiet',
    disks: [{ serial: 'root', path: join(runDir, 'root.img'), readOnly: true }],
    vcpus: 1,
    memoryMib: 64,
    network: 'user',
    runDir,
  }
}

async function launch(t: ExecutionContext, vmPlan: VmPlan): Promise<Vm> {
  const vm = await qemu.launch(vmPlan, { launch: spawnVmProcess, consoleFile: join(vmPlan.runDir, 'console.log') })
  t.teardown(() => vm.stop({ graceMs: 0 }))
  return vm
}

function consoleSays(vm: Vm, code: string): Promise<void> {
  return new Promise((resolve) => {
    const look = () => {
      if (vm.console.codes.includes(code)) resolve()
    }
    vm.console.onProgress(look)
    look()
  })
}

function watch(vmPlan: VmPlan, change: Partial<BootWatch<never>> = {}): BootWatch<never> {
  return {
    platform: 'none',
    accelerator: 'tcg',
    launch: () => qemu.launch(vmPlan, { launch: spawnVmProcess }),
    connectAgent: () => new Promise(() => undefined),
    ...change,
  }
}

test('a VM starts under the sandbox, writes to its console and is stopped', async (t) => {
  const vmPlan = await plan(t, { text: 'caisson: init-start\r\n', ending: 'halt' })
  const vm = await launch(t, vmPlan)
  await consoleSays(vm, 'init-start')
  const status = await readFile(`/proc/${vm.process.pid}/status`, 'utf8')
  t.regex(status, /^Seccomp:\s+2$/m)
  t.like(await vm.stop(), { code: 0, signal: undefined })
  t.is(vm.shutdownReason, 'host-qmp-quit')
  t.regex(await readFile(join(vmPlan.runDir, 'console.log'), 'latin1'), /caisson: init-start/)
})

test('nothing is left in the run directory but what was put there and the log', async (t) => {
  const vmPlan = await plan(t, { text: '', ending: 'halt' })
  const vm = await launch(t, vmPlan)
  await vm.stop()
  t.deepEqual((await readdir(vmPlan.runDir)).toSorted(), ['console.log', 'kernel', 'root.img'])
})

for (const [ending, reason] of [
  ['poweroff', 'guest-shutdown'],
  ['reset', 'guest-reset'],
] as const) {
  test(`a guest that ends itself by ${ending} ends the VM, and the reason is known`, async (t) => {
    const error = await t.throwsAsync(watchBoot(watch(await plan(t, { text: '', ending }))), { instanceOf: BootError })
    t.is(error?.code, 'ERR_VM_EXITED')
    t.is(error?.stage, 'kernel')
    t.regex(error?.message ?? '', new RegExp(reason))
  })
}

test('a guest that hangs after PID 1 spoke is stopped, and stage init is named', async (t) => {
  const vmPlan = await plan(t, { text: 'caisson: init-start\r\n', ending: 'halt' })
  const error = await t.throwsAsync(watchBoot(watch(vmPlan, { limits: { init: 200 } })), { instanceOf: BootError })
  t.is(error?.code, 'ERR_BOOT_STALLED')
  t.is(error?.stage, 'init')
  t.deepEqual(error?.consoleCodes, ['init-start'])
})

test('a kernel file that is missing is told in QEMU’s own words', async (t) => {
  const vmPlan = await plan(t, { text: '', ending: 'halt' })
  const error = await t.throwsAsync(launch(t, { ...vmPlan, kernel: join(vmPlan.runDir, 'absent') }), {
    code: 'ERR_VMM_FAILED',
  })
  t.regex(error?.message ?? '', /absent/)
})

test('a VM is taken over by whoever comes after its driver, one after the other', async (t) => {
  const vmPlan = await plan(t, { text: '', ending: 'halt' })
  const vm = await launch(t, vmPlan)
  for (let turn = 0; turn < 2; turn++) {
    using later = await AdoptedVm.connect(vmPlan.runDir, {})
    t.false(later.waitsForRoom)
  }
  t.like(await vm.stop(), { code: 0, signal: undefined })
})

test('a VM that is killed from outside is noticed', async (t) => {
  const vm = await launch(t, await plan(t, { text: '', ending: 'halt' }))
  process.kill(vm.process.pid, 'SIGKILL')
  t.is((await vm.process.exited).signal, 'SIGKILL')
  await vm.controlLost
})
