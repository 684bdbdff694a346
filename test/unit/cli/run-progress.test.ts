import { create } from '@bufbuild/protobuf'
import test from 'ava'
import { followEvents, tellRoom } from '#cli/run/progress'
import { EventKind, EventSchema } from '#protocol/gen/agent_pb'

type Told = Partial<{ kind: EventKind; containerId: string; layer: number; layers: number }> & {
  doneBytes?: bigint
  totalBytes?: bigint
  errorCode?: string
  retryInMs?: number
}

async function lines(events: readonly Told[]): Promise<readonly string[]> {
  const said: string[] = []
  const agent = {
    async *watchEvents() {
      for (const event of events) yield create(EventSchema, event)
    },
  }
  await followEvents(agent, { progress: (text) => void said.push(text) }, () => 1500).stop()
  return said
}

const layer = (containerId: string, doneBytes: bigint): Told => {
  return { kind: EventKind.PULL_LAYER, containerId, layer: 1, layers: 2, doneBytes, totalBytes: 10n }
}

test('an image that the guest began to fetch early, and tells its container again, is told once', async (t) => {
  const pull = (containerId: string): readonly Told[] => [
    { kind: EventKind.PULL_MANIFEST, containerId },
    layer(containerId, 5n),
    layer(containerId, 10n),
    { kind: EventKind.PULL_DONE, containerId },
  ]
  t.deepEqual(await lines([...pull(''), ...pull('web')]), [
    '   1.5 s pulling: manifest',
    '   1.5 s pulling: layer 2 of 2, 10 bytes',
    '   1.5 s pulled',
  ])
})

test('a pull that waits says why and for how long', async (t) => {
  const kind = EventKind.PULL_TROUBLE
  const busy: Told = { kind, errorCode: 'ERR_REGISTRY_STATUS', retryInMs: 5000 }
  const cut: Told = { kind, errorCode: 'ERR_HTTP_CUT', layer: 0, layers: 3, retryInMs: 210 }
  const slow: Told = { kind, errorCode: 'ERR_REGISTRY_SLOW', layer: 2, layers: 3 }
  t.deepEqual(await lines([busy, cut, slow]), [
    '   1.5 s pulling: ERR_REGISTRY_STATUS, again in 5.0 s',
    '   1.5 s pulling: layer 1 of 3, ERR_HTTP_CUT, again in 0.2 s',
    '   1.5 s pulling: layer 3 of 3, ERR_REGISTRY_SLOW',
  ])
})

test('where images go, and how much of them, is told before anything is pulled', async (t) => {
  t.deepEqual(await lines([{ kind: EventKind.SCRATCH, totalBytes: 1_000_000n }]), [
    '   1.5 s scratch: a disk, encrypted and authenticated, 1000000 bytes for images and containers',
  ])
})

test('a machine whose disk is full says that the guest waits, and that it goes on', (t) => {
  const said: unknown[] = []
  const tell = tellRoom({ progress: (text, event) => void said.push(text, event) }, () => 1500)
  tell(true)
  tell(false)
  t.deepEqual(said, [
    '   1.5 s a disk of this machine is full: the guest waits for room',
    { diskFull: true, atMs: 1500 },
    '   1.5 s there is room again: the guest goes on',
    { diskFull: false, atMs: 1500 },
  ])
})
