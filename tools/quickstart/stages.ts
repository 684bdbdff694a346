/** Prints what happens, stage by stage with its time, and keeps the times for the summary. */
export interface StageTime {
  readonly title: string
  readonly ms: number
}

export class Stages {
  readonly #times: StageTime[] = []
  #number = 0

  get times(): readonly StageTime[] {
    return this.#times
  }

  /** Runs one stage; `note` prints a line of what was found in it. */
  async run<T>(title: string, work: (note: (line: string) => void) => Promise<T>): Promise<T> {
    const started = performance.now()
    this.#number++
    print(`\n[${this.#number}] ${title}`)
    const result = await work((line) => print(`    ${line}`))
    const ms = Math.round(performance.now() - started)
    this.#times.push({ title, ms })
    print(`    done in ${(ms / 1000).toFixed(1)} s`)
    return result
  }
}

export function print(line: string): void {
  process.stdout.write(`${line}\n`)
}
