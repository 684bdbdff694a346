/** What a guest has told of its life so far: stage, pulls, the last refusal. For people and for metrics; decides nothing. */
import { type Event, EventKind } from '#protocol/gen/agent_pb'

export interface PullState {
  readonly containerId: string
  readonly layers: number
  readonly doneBytes: number
  readonly totalBytes: number
  readonly done: boolean
}

const STAGES: Readonly<Partial<Record<EventKind, string>>> = {
  [EventKind.STAGE_NETWORK]: 'network',
  [EventKind.STAGE_ATTESTING]: 'attesting',
  [EventKind.STAGE_ATTESTED]: 'attested',
}

interface Pull {
  readonly layers: number
  readonly totalBytes: number
  /** By layer. */
  readonly doneBytes: Map<number, number>
  done: boolean
}

/** Pulls that failed are remembered for whoever asks why, these many. */
const KEPT_FAILURES = 16

export class PodProgress {
  #stage = 'booting'
  #refusal = ''
  readonly #pulls = new Map<string, Pull>()
  readonly #failed = new Map<string, PullState>()

  /** booting, network, attesting, attested, refused */
  get stage(): string {
    return this.#stage
  }

  /** The last code of a refusal or failure; empty when there was none. */
  get refusal(): string {
    return this.#refusal
  }

  get pulls(): readonly PullState[] {
    return [...this.#pulls].map(([containerId, { layers, totalBytes, doneBytes, done }]) => ({
      containerId,
      layers,
      totalBytes,
      doneBytes: [...doneBytes.values()].reduce((sum, bytes) => sum + bytes, 0),
      done,
    }))
  }

  /** Of a container that is being made, or could not be; undefined before anything of its image has come. */
  pullOf(containerId: string): PullState | undefined {
    return this.pulls.find((pull) => pull.containerId === containerId) ?? this.#failed.get(containerId)
  }

  take({ kind, containerId, layer, layers, doneBytes, totalBytes, errorCode }: Event): void {
    const stage = STAGES[kind]
    if (stage !== undefined) this.#stage = stage
    if (kind === EventKind.REFUSED || kind === EventKind.FAILED) {
      this.#refusal = errorCode
      if (containerId === '') this.#stage = 'refused'
      this.#fail(containerId)
    }
    if (kind === EventKind.PULL_MANIFEST) {
      this.#failed.delete(containerId)
      const pull = { layers, totalBytes: Number(totalBytes), doneBytes: new Map<number, number>(), done: false }
      this.#pulls.set(containerId, pull)
    }
    const pull = this.#pulls.get(containerId)
    if (pull === undefined) return
    if (kind === EventKind.PULL_LAYER) pull.doneBytes.set(layer, Number(doneBytes))
    if (kind === EventKind.PULL_DONE || kind === EventKind.CREATED) pull.done = true
    if (kind === EventKind.EXITED) this.#pulls.delete(containerId)
  }

  #fail(containerId: string): void {
    const pull = this.pulls.find((known) => known.containerId === containerId)
    this.#pulls.delete(containerId)
    if (pull === undefined) return
    this.#failed.set(containerId, pull)
    const [oldest] = this.#failed.keys()
    if (oldest !== undefined && this.#failed.size > KEPT_FAILURES) this.#failed.delete(oldest)
  }
}
