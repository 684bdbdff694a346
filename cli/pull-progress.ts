/** Progress of a pull: bars on a terminal, lines elsewhere, events with --json. Per layer and in total. */
import type { PullProgress } from '#image/pull/progress'
import type { Output } from './output.ts'

interface LayerState {
  fetched: number
  readonly size: number
  state: 'present' | 'fetching' | 'done'
  /** Quarters that were told, in lines. */
  quarters: number
}

export interface ProgressOptions {
  readonly out: Output
  /** Of the terminal; undefined when there is none. */
  readonly columns: number | undefined
  readonly write: (text: string) => void
  readonly nowMs: () => number
}

const REDRAW_MS = 100
const MOST_BARS = 8

export class PullProgressView {
  readonly #options: ProgressOptions
  readonly #layers = new Map<number, LayerState>()
  #total = 0
  #count = 0
  #drawn = 0
  #drawnAtMs = Number.NEGATIVE_INFINITY
  #startedMs = 0

  constructor(options: ProgressOptions) {
    this.#options = options
  }

  readonly report = (progress: PullProgress): void => {
    const { out } = this.#options
    if (progress.type === 'layer') {
      if (out.json) this.#layerEvent(progress)
      else this.#layer(progress)
      return
    }
    if (progress.type === 'resolved') {
      this.#total = progress.compressedBytes
      this.#count = progress.layers
      this.#startedMs = this.#options.nowMs()
    }
    const text = describe(progress)
    if (text !== undefined) this.#say(text, progress)
  }

  /** Removes the bars. */
  finish(): void {
    this.#clear()
  }

  #layer(progress: Extract<PullProgress, { type: 'layer' }>): void {
    const { layer, digest, state, fetchedBytes, compressedBytes } = progress
    const known = this.#layers.get(layer) ?? { fetched: 0, size: compressedBytes, state, quarters: 0 }
    known.fetched = fetchedBytes
    known.state = state
    this.#layers.set(layer, known)
    if (this.#options.columns !== undefined) {
      if (state !== 'fetching' || this.#options.nowMs() - this.#drawnAtMs >= REDRAW_MS) this.#draw()
      return
    }
    const quarters = Math.floor((4 * fetchedBytes) / Math.max(compressedBytes, 1))
    const place = `layer ${layer + 1}/${this.#count} ${digest.slice(0, 19)}`
    if (state !== 'fetching') {
      this.#say(
        `${place}: ${state === 'present' ? 'already there' : 'done'}, ${size(compressedBytes)}; ${this.#totals()}`,
        progress,
      )
    } else if (quarters > known.quarters && quarters < 4) {
      this.#say(`${place}: ${quarters * 25} % of ${size(compressedBytes)}; ${this.#totals()}`, progress)
    }
    known.quarters = Math.max(known.quarters, quarters)
  }

  /** Not more often than anybody can read. */
  #layerEvent(progress: Extract<PullProgress, { type: 'layer' }>): void {
    const now = this.#options.nowMs()
    if (progress.state === 'fetching' && now - this.#drawnAtMs < REDRAW_MS) return
    this.#drawnAtMs = now
    this.#options.out.progress(`layer ${progress.layer + 1} ${progress.state}`, { ...progress })
  }

  #say(text: string, event: PullProgress): void {
    this.#clear()
    this.#options.out.progress(text, { ...event })
    if (this.#layers.size > 0 && this.#options.columns !== undefined && !this.#options.out.json) this.#draw()
  }

  #totals(): string {
    const fetched = [...this.#layers.values()].reduce((sum, layer) => sum + layer.fetched, 0)
    const seconds = Math.max((this.#options.nowMs() - this.#startedMs) / 1000, 0.001)
    return `${size(fetched)} of ${size(this.#total)}, ${size(fetched / seconds)}/s`
  }

  #draw(): void {
    const { columns = 80, write, nowMs } = this.#options
    this.#clear()
    this.#drawnAtMs = nowMs()
    const active = [...this.#layers].filter(([, { state }]) => state === 'fetching').slice(0, MOST_BARS)
    const done = [...this.#layers.values()].filter(({ state }) => state !== 'fetching').length
    const lines = active.map(([number, layer]) =>
      bar(
        `layer ${number + 1}`,
        layer.fetched / Math.max(layer.size, 1),
        `${size(layer.fetched)}/${size(layer.size)}`,
        columns,
      ),
    )
    const fetched = [...this.#layers.values()].reduce((sum, layer) => sum + layer.fetched, 0)
    lines.push(
      bar('total', fetched / Math.max(this.#total, 1), `${done}/${this.#count} layers, ${this.#totals()}`, columns),
    )
    write(`${lines.join('\n')}\n`)
    this.#drawn = lines.length
  }

  #clear(): void {
    if (this.#drawn > 0) this.#options.write(`\u001b[${this.#drawn}A\u001b[J`)
    this.#drawn = 0
  }
}

function describe(progress: Exclude<PullProgress, { type: 'layer' }>): string | undefined {
  switch (progress.type) {
    case 'resolved':
      return `manifest ${progress.manifestDigest}: ${progress.layers} layers, ${size(progress.compressedBytes)}`
    case 'judged':
      return `signatures: admitted by ${progress.place}`
    case 'index':
      return progress.state === 'indexing' ? undefined : `index ${progress.state}`
    case 'trouble': {
      const { layer, code, why, retryInMs } = progress
      const when = retryInMs > 0 ? `; again in ${(retryInMs / 1000).toFixed(1)} s` : ''
      return `${layer === undefined ? '' : `layer ${layer + 1}: `}${code}: ${why}${when}`
    }
    default:
      return progress satisfies never
  }
}

/** A line of at most `columns` characters. */
function bar(name: string, part: number, text: string, columns: number): string {
  const width = Math.max(0, Math.min(30, columns - text.length - 16))
  const full = Math.round(Math.min(Math.max(part, 0), 1) * width)
  return `${name.padEnd(10)} [${'#'.repeat(full)}${'.'.repeat(width - full)}] ${text}`.slice(0, columns - 1)
}

function size(bytes: number): string {
  return bytes < 1e6 ? `${Math.round(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`
}
