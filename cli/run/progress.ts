/** Prints the guest's enumerated events while a container is prepared. */
import type { AgentClient } from '#host-shim/pod/agent-client'
import { type Event, EventKind } from '#protocol/gen/agent_pb'
import type { Output } from '../output.ts'

/** Stages as the user reads them; kinds that are absent here are not printed. */
const STAGES: ReadonlyMap<EventKind, string> = new Map([
  [EventKind.STAGE_NETWORK, 'network'],
  [EventKind.STAGE_ATTESTING, 'attesting'],
  [EventKind.STAGE_ATTESTED, 'attested'],
  [EventKind.PULL_MANIFEST, 'pulling: manifest'],
  [EventKind.PULL_SIGNATURE, 'pulling: signature accepted'],
  [EventKind.PULL_DONE, 'pulled'],
  [EventKind.MEASURED, 'image measured, second token'],
  [EventKind.CREATED, 'created'],
  [EventKind.STARTED, 'started'],
])

export interface FollowedEvents {
  stop(): Promise<void>
}

export function followEvents(
  agent: Pick<AgentClient, 'watchEvents'>,
  out: Pick<Output, 'progress'>,
  atMs: () => number,
): FollowedEvents {
  const ended = new AbortController()
  const following = (async () => {
    try {
      const finished = new Set<number>()
      const reached = new Set<EventKind>()
      for await (const event of agent.watchEvents(0n, { signal: ended.signal })) {
        // A finished layer is told again when its index is ready; one line per layer is enough.
        const layer = event.kind === EventKind.PULL_LAYER ? event.layer : undefined
        if (layer !== undefined && (event.doneBytes !== event.totalBytes || finished.has(layer))) continue
        if (layer !== undefined) finished.add(layer)
        // The guest begins to pull before it has a container to name, and tells that container again.
        if (STAGES.has(event.kind) && reached.has(event.kind)) continue
        reached.add(event.kind)
        print(event, out, atMs())
      }
    } catch {
      // The connection ends with the guest; how that went is told by whoever waits for the container.
    }
  })()
  return {
    stop: async () => {
      ended.abort()
      await following
    },
  }
}

/** Seconds since the start, at the beginning of a line. */
export function stamp(ms: number): string {
  return `${(ms / 1000).toFixed(1).padStart(6)} s`
}

/** What is told of a disk that is full, and of room that there is again. */
export function tellRoom(out: Pick<Output, 'progress'>, atMs: () => number): (full: boolean) => void {
  return (diskFull) => {
    const text = diskFull
      ? 'a disk of this machine is full: the guest waits for room'
      : 'there is room again: the guest goes on'
    out.progress(`${stamp(atMs())} ${text}`, { diskFull, atMs: atMs() })
  }
}

function print(event: Event, out: Pick<Output, 'progress'>, atMs: number): void {
  const seconds = stamp(atMs)
  if (event.kind === EventKind.PULL_LAYER) {
    const { layer, layers, totalBytes } = event
    out.progress(`${seconds} pulling: layer ${layer + 1} of ${layers}, ${totalBytes} bytes`, {
      layer,
      layers,
      bytes: Number(totalBytes),
      atMs,
    })
    return
  }
  if (event.kind === EventKind.SCRATCH) {
    const bytes = Number(event.totalBytes)
    // A disk and never memory: how large a layer becomes is not known before it is there.
    out.progress(`${seconds} scratch: a disk, encrypted and authenticated, ${bytes} bytes for images and containers`, {
      scratchBytes: bytes,
      atMs,
    })
    return
  }
  if (event.kind === EventKind.PULL_TROUBLE) {
    const { layer, layers, errorCode: code, retryInMs } = event
    const where = layers === 0 ? '' : `layer ${layer + 1} of ${layers}, `
    const again = retryInMs === 0 ? '' : `, again in ${(retryInMs / 1000).toFixed(1)} s`
    out.progress(`${seconds} pulling: ${where}${code}${again}`, { code, retryInMs, atMs })
    return
  }
  const stage = STAGES.get(event.kind)
  if (stage !== undefined) out.progress(`${seconds} ${stage}`, { stage, atMs })
}
