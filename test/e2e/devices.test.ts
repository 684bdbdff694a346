/** The machine as its guest finds it: devices, and what keeps secrets from leaving memory. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import anyTest, { type TestFn } from 'ava'
import { openGuestStream } from '#host-shim/pod/guest-streams'
import type { Pod } from '#host-shim/pod/pod'
import { StreamKind } from '#protocol/gen/agent_pb'
import { startGuest, startSandbox } from './fixtures/shell-guest.ts'

interface Context {
  /** Runs a command of the policy in a container; answers with what it writes. */
  ask: (name: string) => Promise<string>
}

const test = anyTest as TestFn<Context>
const cleanUp = new AsyncDisposableStack()

const COMMANDS: Readonly<Record<string, string>> = {
  devices: 'for d in /sys/bus/virtio/devices/*; do echo $(cat $d/device $d/features); done',
  leaks: 'for f in /proc/swaps /proc/kcore /proc/sys/kernel/core_pattern /dev/mem /dev/port; do cat $f; done 2>&1',
  crash: "ulimit -c unlimited; ulimit -c; sh -c 'kill -SEGV $$'; echo ended with $?; ls /",
}

/** Virtio device ids (virtio 1.2, section 5). */
const KINDS: Readonly<Record<string, string>> = { '0x0001': 'network', '0x0002': 'block', '0x0013': 'socket' }
/** Feature bits (virtio 1.2, section 6). */
const VERSION_1 = 32
const ACCESS_PLATFORM = 33

test.before(async (t) => {
  t.timeout(600_000)
  const folder = await mkdtemp(join(tmpdir(), 'cd-'))
  cleanUp.defer(() => rm(folder, { recursive: true, force: true }))
  const held = Object.assign(t, { teardown: (end: () => unknown) => cleanUp.defer(async () => void (await end())) })
  const rule = (name: string, image: string): string =>
    `  - { name: ${name}, image: "${image}", args: [/bin/sh, -c, ${JSON.stringify(COMMANDS[name])}], logs: allow }\n`
  const { pod, image } = await startGuest(folder, held, {
    id: 'devices',
    memoryMib: 1024,
    more: [],
    rules: (reference) =>
      Object.keys(COMMANDS)
        .map((name) => rule(name, reference))
        .join(''),
  })
  await startSandbox(pod)
  t.context = { ask: (name) => ask(pod, name, image) }
})

test.after.always(() => cleanUp.disposeAsync())

async function ask(pod: Pod, name: string, image: string): Promise<string> {
  await pod.agent.createContainer({ containerId: name, name, image })
  const answer = await openGuestStream(pod, { kind: StreamKind.STDOUT, containerId: name, follow: true })
  await pod.agent.startContainer(name)
  return text(answer)
}

test.serial(
  'every device of the VM offers VIRTIO_F_ACCESS_PLATFORM, the vhost-user one too, and the guest takes it',
  async (t) => {
    const answer = await t.context.ask('devices')
    t.log(answer)
    const devices = answer
      .trim()
      .split('\n')
      .map((line) => line.split(' '))
    const kinds = devices.map(([id = '']) => KINDS[id] ?? id).toSorted()
    t.deepEqual(kinds, ['block', 'block', 'block', 'network', 'socket'])
    // sysfs shows what device and driver agreed upon, lowest bit first.
    for (const [id, features] of devices) {
      t.is(features?.[VERSION_1], '1', id)
      t.is(features?.[ACCESS_PLATFORM], '1', id)
    }
  },
)

test.serial('the guest has no swap, no core dumps and no file that shows raw memory', async (t) => {
  const answer = await t.context.ask('leaks')
  t.log(answer)
  for (const line of answer.trim().split('\n')) t.regex(line, /No such file or directory$/)
  t.is(answer.trim().split('\n').length, 5)
})

test.serial('a process that crashes in the guest leaves no core dump, whatever limit it sets', async (t) => {
  const answer = await t.context.ask('crash')
  t.log(answer)
  t.regex(answer, /^0\nended with 139\nbin\n/, 'the limit stays 0')
  t.notRegex(answer, /^core/m)
})
