/**
 * Runs a computation beside everything else that the event loop has to do: a slice, then whatever else is ready. Of several
 * computations each gets its slice in turn, one in each turn of the loop, however many there are.
 */
import type { Steps } from '../evidence/steps.ts'

/** How long the event loop is kept at a time, milliseconds, and what costs less is never interrupted. */
const SLICE_MS = 1

const waiting: (() => void)[] = []

/** Resolves to what the computation returns; throws what it throws. */
export async function inSlices<T>(steps: Steps<T>): Promise<T> {
  for (;;) {
    const end = performance.now() + SLICE_MS
    do {
      const step = steps.next()
      if (step.done === true) return step.value
    } while (performance.now() < end)
    await ownTurn()
  }
}

function ownTurn(): Promise<void> {
  return new Promise((resolve) => {
    waiting.push(resolve)
    if (waiting.length === 1) setImmediate(letOneOn)
  })
}

function letOneOn(): void {
  waiting.shift()?.()
  if (waiting.length > 0) setImmediate(letOneOn)
}
