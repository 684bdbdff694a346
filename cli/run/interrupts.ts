/** What an interrupt means while a pod lives. Never the default, which would leave the pod's files behind. */
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const

export class Interrupts implements Disposable {
  readonly #deliver = (): void => this.#react()
  #react: () => void

  /** @param react called at each interrupt until another reaction takes its place */
  constructor(react: () => void) {
    this.#react = react
    for (const signal of SIGNALS) process.on(signal, this.#deliver)
  }

  /** From now on interrupts mean this. */
  mean(react: () => void): void {
    this.#react = react
  }

  [Symbol.dispose](): void {
    for (const signal of SIGNALS) process.off(signal, this.#deliver)
  }
}
