/** Numbers about a node and its pods, in the text form that Prometheus reads (exposition format 0.0.4). */

export type Labels = Readonly<Record<string, string>>

/** Seconds. From a request that memory answers to a pull of minutes. */
const BUCKETS: readonly number[] = [0.001, 0.005, 0.025, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800]

interface Series {
  readonly labels: Labels
  readonly counts: number[]
  sum: number
  count: number
}

/** How long things took, by labels. Bounded by what the labels can be: names of ours only. */
export class Histogram {
  readonly name: string
  readonly help: string
  readonly #series = new Map<string, Series>()

  constructor(name: string, help: string) {
    this.name = name
    this.help = help
  }

  observe(seconds: number, labels: Labels): void {
    const key = labelText(labels)
    let series = this.#series.get(key)
    if (series === undefined) {
      series = { labels, counts: BUCKETS.map(() => 0), sum: 0, count: 0 }
      this.#series.set(key, series)
    }
    series.sum += seconds
    series.count++
    for (const [index, limit] of BUCKETS.entries()) {
      if (seconds <= limit) series.counts[index] = (series.counts[index] ?? 0) + 1
    }
  }

  /** Times `work`, also when it fails. */
  async time<T>(labels: Labels, work: () => Promise<T>): Promise<T> {
    const start = performance.now()
    try {
      return await work()
    } finally {
      this.observe((performance.now() - start) / 1000, labels)
    }
  }

  lines(): readonly string[] {
    if (this.#series.size === 0) return []
    const lines = header(this.name, this.help, 'histogram')
    for (const { labels, counts, sum, count } of this.#series.values()) {
      for (const [index, limit] of BUCKETS.entries()) {
        lines.push(`${this.name}_bucket${labelText({ ...labels, le: String(limit) })} ${counts[index] ?? 0}`)
      }
      lines.push(`${this.name}_bucket${labelText({ ...labels, le: '+Inf' })} ${count}`)
      lines.push(`${this.name}_sum${labelText(labels)} ${sum}`, `${this.name}_count${labelText(labels)} ${count}`)
    }
    return lines
  }
}

export class Counter {
  readonly name: string
  readonly help: string
  readonly #values = new Map<string, number>()

  constructor(name: string, help: string) {
    this.name = name
    this.help = help
  }

  add(labels: Labels): void {
    const key = labelText(labels)
    this.#values.set(key, (this.#values.get(key) ?? 0) + 1)
  }

  lines(): readonly string[] {
    if (this.#values.size === 0) return []
    return [
      ...header(this.name, this.help, 'counter'),
      ...[...this.#values].map(([key, value]) => `${this.name}${key} ${value}`),
    ]
  }
}

export interface Gauge {
  readonly name: string
  readonly help: string
  readonly type: 'gauge' | 'counter'
  readonly values: readonly { readonly labels: Labels; readonly value: number }[]
}

export function gaugeLines({ name, help, type, values }: Gauge): readonly string[] {
  if (values.length === 0) return []
  return [...header(name, help, type), ...values.map(({ labels, value }) => `${name}${labelText(labels)} ${value}`)]
}

function header(name: string, help: string, type: string): string[] {
  return [`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`]
}

function labelText(labels: Labels): string {
  const entries = Object.entries(labels)
  if (entries.length === 0) return ''
  const escaped = (text: string): string => text.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n')
  return `{${entries.map(([name, value]) => `${name}="${escaped(value)}"`).join(',')}}`
}

/** What one daemon counts and times from its start on. */
export class NodeMetrics {
  readonly rpc: Histogram = new Histogram(
    'caisson_rpc_seconds',
    'Requests of containerd, by method of the task service.',
  )
  readonly boot: Histogram = new Histogram(
    'caisson_boot_stage_seconds',
    'From the start of a machine to a stage of its boot, and until its agent answered (ready).',
  )
  readonly attestation: Histogram = new Histogram(
    'caisson_attestation_seconds',
    'Network, attestation and policy of a pod.',
  )
  readonly attestations: Counter = new Counter(
    'caisson_attestations_total',
    'Pods that were attested, or refused, by code.',
  )
  readonly refusals: Counter = new Counter('caisson_refusals_total', 'Refusals and failures that guests told, by code.')

  lines(): readonly string[] {
    return [this.rpc, this.boot, this.attestation, this.attestations, this.refusals].flatMap((metric) => metric.lines())
  }
}
