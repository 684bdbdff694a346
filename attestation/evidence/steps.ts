/**
 * Computations that can pause: a generator that yields where it may. Libraries run them in one go; a service takes a slice at
 * a time, so that nobody's evidence keeps everybody else waiting.
 */
export type Steps<T> = Generator<void, T, void>

/** Items between two pauses: some hundred microseconds. */
export const STEP_ITEMS = 32

export function inOneGo<T>(steps: Steps<T>): T {
  for (;;) {
    const step = steps.next()
    if (step.done === true) return step.value
  }
}
