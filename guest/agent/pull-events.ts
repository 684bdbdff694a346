/** Progress of a pull as events for the host, which sees this traffic anyway. Not more often than anybody can read. */
import type { PullProgress } from '#image/pull/progress'
import { EventKind } from '#protocol/gen/agent_pb'
import type { Clock } from '../platform/platform.ts'
import type { EventLog } from './events.ts'
import { PROGRESS_INTERVAL_MS } from './limits.ts'

export function pullEvents(
  events: EventLog,
  containerId: string,
  clock: Pick<Clock, 'monotonicMs'>,
): (progress: PullProgress) => void {
  const done = new Set<number>()
  const toldMs = new Map<number, number>()
  let troubledMs = Number.NEGATIVE_INFINITY
  let layers = 0
  return (progress) => {
    switch (progress.type) {
      case 'resolved':
        layers = progress.layers
        events.append({
          kind: EventKind.PULL_MANIFEST,
          containerId,
          layers,
          totalBytes: BigInt(progress.compressedBytes),
        })
        break
      case 'judged':
        events.append({ kind: EventKind.PULL_SIGNATURE, containerId })
        break
      case 'layer': {
        const { layer, state, fetchedBytes, compressedBytes } = progress
        const final = state === 'done' || state === 'present'
        const now = clock.monotonicMs()
        if (!final && now - (toldMs.get(layer) ?? Number.NEGATIVE_INFINITY) < PROGRESS_INTERVAL_MS) return
        toldMs.set(layer, now)
        events.append({
          kind: EventKind.PULL_LAYER,
          containerId,
          layer,
          layers,
          doneBytes: BigInt(fetchedBytes),
          totalBytes: BigInt(compressedBytes),
        })
        if (final) done.add(layer)
        if (final && done.size === layers) events.append({ kind: EventKind.PULL_DONE, containerId, layers })
        break
      }
      case 'trouble': {
        const { layer, code, retryInMs } = progress
        const now = clock.monotonicMs()
        if (now - troubledMs < PROGRESS_INTERVAL_MS) return
        troubledMs = now
        const place = layer === undefined ? {} : { layer, layers }
        const errorCode = code
        events.append({
          kind: EventKind.PULL_TROUBLE,
          containerId,
          ...place,
          errorCode,
          retryInMs: Math.ceil(retryInMs),
        })
        break
      }
      case 'index':
        break
      default:
        progress satisfies never
    }
  }
}
