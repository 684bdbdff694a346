import test from 'ava'
import { BootError, type BootStage, type BootWatch, watchBoot } from '#vmm/boot-watch'
import { ConsoleReader } from '#vmm/console-log'
import type { Vm, VmExit } from '#vmm/types'

/** A VM that does what the test says. */
function fakeVm(shutdownReason?: string) {
  const console = new ConsoleReader(undefined)
  const exited = Promise.withResolvers<VmExit>()
  let stops = 0
  const exit = (details: Partial<VmExit> = {}) => exited.resolve({ code: 0, signal: undefined, stderr: '', ...details })
  const stop = async () => {
    stops += 1
    exit()
    return exited.promise
  }
  const vm: Vm = {
    process: { pid: 1, exited: exited.promise, kill: exit },
    shutdownReason,
    console,
    controlLost: new Promise(() => undefined),
    stop,
    [Symbol.asyncDispose]: async () => {
      await stop()
    },
  }
  return { vm, exit, say: (text: string) => console.push(Buffer.from(text)), stops: () => stops }
}

function watch<T>(vm: Vm, connectAgent: () => Promise<T>, change: Partial<BootWatch<T>> = {}): BootWatch<T> {
  const hour = 3_600_000
  return {
    platform: 'none',
    accelerator: 'tcg',
    launch: async () => vm,
    connectAgent,
    limits: { firmware: hour, kernel: hour, init: hour, agent: hour },
    ...change,
  }
}

const never = () => new Promise<never>(() => undefined)

test('stages are reported as their signs come, and the agent’s answer ends the watch', async (t) => {
  const { vm, say, stops } = fakeVm()
  const agent = Promise.withResolvers<string>()
  const stages: BootStage[] = []
  const booted = watchBoot(watch(vm, () => agent.promise, { platform: 'tpm', onStage: (stage) => stages.push(stage) }))
  await Promise.resolve()
  await Promise.resolve()
  say('\x1b[2J')
  say('caisson: init-start\n')
  say('caisson: initdata-measured\ncaisson: agent-start\n')
  agent.resolve('hello')
  const result = await booted
  t.is(result.agent, 'hello')
  t.deepEqual(stages, ['vmm', 'firmware', 'kernel', 'init', 'agent'])
  t.deepEqual(
    result.stages.map(({ stage }) => stage),
    stages,
  )
  t.is(stops(), 0)
})

for (const [stage, said] of [
  ['kernel', ''],
  ['init', 'caisson: init-start\n'],
  ['agent', 'caisson: init-start\ncaisson: agent-start\n'],
] as const) {
  test(`a boot that hangs in stage ${stage} is stopped and named`, async (t) => {
    const { vm, say, stops } = fakeVm()
    const error = await t.throwsAsync(
      watchBoot(
        watch(vm, never, {
          limits: { [stage]: 30 },
          launch: async () => {
            setTimeout(() => say(said), 1)
            return vm
          },
        }),
      ),
      { instanceOf: BootError, code: 'ERR_BOOT_STALLED' },
    )
    t.is(error?.stage, stage)
    t.truthy(error?.hint)
    t.is(stops(), 1)
  })

  test(`a VM that ends in stage ${stage} is named with its reason and a remedy`, async (t) => {
    const { vm, say, exit } = fakeVm('guest-reset')
    const error = await t.throwsAsync(
      watchBoot(
        watch(vm, never, {
          launch: async () => {
            setTimeout(() => {
              say(said)
              exit()
            }, 1)
            return vm
          },
        }),
      ),
      { instanceOf: BootError, code: 'ERR_VM_EXITED' },
    )
    t.is(error?.stage, stage)
    t.regex(error?.message ?? '', /guest-reset/)
    if (stage === 'kernel') t.regex(error?.hint ?? '', /does not match the hash on the measured command line/)
  })
}

test('console noise is no progress', async (t) => {
  const { vm, say } = fakeVm()
  const noise = setInterval(() => say('caisson: NOT A CODE\n...'), 5)
  t.teardown(() => clearInterval(noise))
  const error = await t.throwsAsync(watchBoot(watch(vm, never, { limits: { kernel: 60 } })), { instanceOf: BootError })
  t.is(error?.stage, 'kernel')
})

test('a code that PID 1 gave decides the hint', async (t) => {
  const { vm, say, exit } = fakeVm('guest-shutdown')
  const error = await t.throwsAsync(
    watchBoot(
      watch(vm, never, {
        launch: async () => {
          setTimeout(() => {
            say('caisson: init-start\ncaisson: initdata-missing\ncaisson: poweroff\n')
            exit()
          }, 1)
          return vm
        },
      }),
    ),
    { instanceOf: BootError },
  )
  t.regex(error?.hint ?? '', /initdata disk/)
  t.deepEqual(error?.consoleCodes, ['init-start', 'initdata-missing', 'poweroff'])
})

test('an abort stops the VM and throws its reason', async (t) => {
  const { vm, stops } = fakeVm()
  const abort = new AbortController()
  const booted = watchBoot(watch(vm, never, { signal: abort.signal }))
  abort.abort(new Error('interrupted'))
  await t.throwsAsync(booted, { message: 'interrupted' })
  t.is(stops(), 1)
})
