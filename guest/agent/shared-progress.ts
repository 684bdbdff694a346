/** Progress of one pull for all who wait for it; whoever comes late is told first how far it is. */
import type { PullProgress } from '#image/pull/progress'

export type ProgressListener = (progress: PullProgress) => void

export class SharedProgress {
  readonly #listeners = new Set<ProgressListener>()
  /** The last of each kind, and of each layer; a pull has at most as many as an image has layers, and a few. */
  readonly #last = new Map<string, PullProgress>()

  readonly report = (progress: PullProgress): void => {
    if (progress.type !== 'trouble') this.#last.set(keyOf(progress), progress)
    for (const listener of this.#listeners) listener(progress)
  }

  /** Answers with how to leave. */
  join(listener: ProgressListener): () => void {
    for (const progress of this.#last.values()) listener(progress)
    this.#listeners.add(listener)
    return () => void this.#listeners.delete(listener)
  }
}

function keyOf(progress: PullProgress): string {
  return progress.type === 'layer' ? `layer ${progress.layer}` : progress.type
}
