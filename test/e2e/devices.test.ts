/** The devices of a VM as its guest finds them. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import test from 'ava'
import { openGuestStream } from '#host-shim/pod/guest-streams'
import { StreamKind } from '#protocol/gen/agent_pb'
import { startGuest, startSandbox } from './fixtures/shell-guest.ts'

/** Virtio device ids (virtio 1.2, section 5). */
const KINDS: Readonly<Record<string, string>> = { '0x0001': 'network', '0x0002': 'block', '0x0013': 'socket' }
/** Feature bits (virtio 1.2, section 6). */
const VERSION_1 = 32
const ACCESS_PLATFORM = 33

test('every device of the VM offers VIRTIO_F_ACCESS_PLATFORM, the vhost-user one too, and the guest takes it', async (t) => {
  t.timeout(600_000)
  const folder = await mkdtemp(join(tmpdir(), 'cd-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  const ask = 'for d in /sys/bus/virtio/devices/*; do echo $(cat $d/device $d/features); done'
  const { pod, image } = await startGuest(folder, t, {
    id: 'devices',
    memoryMib: 1024,
    more: [],
    rules: (reference) => `  - { name: ask, image: "${reference}", args: [/bin/sh, -c, "${ask}"], logs: allow }\n`,
  })
  await startSandbox(pod)
  await pod.agent.createContainer({ containerId: 'ask', image })
  const answer = openGuestStream(pod, { kind: StreamKind.STDOUT, containerId: 'ask', follow: true })
  await pod.agent.startContainer('ask')
  const devices = (await text(await answer))
    .trim()
    .split('\n')
    .map((line) => line.split(' '))
  t.log(devices.map(([kind, features]) => `${kind} ${features}`).join('\n'))
  const kinds = devices.map(([id = '']) => KINDS[id] ?? id).toSorted()
  t.deepEqual(kinds, ['block', 'block', 'block', 'network', 'socket'])
  // sysfs shows what device and driver agreed upon, lowest bit first.
  for (const [id, features] of devices) {
    t.is(features?.[VERSION_1], '1', id)
    t.is(features?.[ACCESS_PLATFORM], '1', id)
  }
})
