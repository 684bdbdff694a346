/**
 * What the verifier did, as Prometheus reads it (text format 0.0.4). Names and meanings of the `kbs_` families are those of
 * other KBS servers. Nothing in it is of one tenant or guest: who may read it may read it for all.
 */
import type { HttpExchange, HttpReply } from './http-listener.ts'

export interface Observation {
  /** Method and path as a pattern: "POST /kbs/v0/resource/*". Never the path itself. */
  readonly route: string
  readonly status: number
  readonly seconds: number
}

/** Upper bounds of the duration histogram, seconds. */
const BUCKETS: readonly number[] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5]

/** First segments below `/kbs/v0` that are our own; any other would name a plugin. */
export const BUILT_IN: ReadonlySet<string> = new Set([
  'auth',
  'attest',
  'resource',
  'time',
  'resource-rollback',
  'resources',
  'reference-value',
  'reference-value-promote',
  'reference-value-retire',
  'reference-values',
  'appraisal-policy',
  'appraisal-policy-check',
  'appraisal-policies',
  'attestations',
  'audit',
  'identity',
  'reason',
  'identity-grant',
  'identity-grants',
  'tenant',
  'tenants',
  'collateral',
])
const METHODS: ReadonlySet<string> = new Set(['GET', 'POST', 'DELETE', 'PUT', 'HEAD'])

/** Bounded, whatever strangers ask for. */
export function routeOf({ method, segments }: Pick<HttpExchange, 'method' | 'segments'>): string {
  const verb = METHODS.has(method) ? method : 'OTHER'
  const path = segments[0] === 't' ? segments.slice(2) : segments
  const [first = '', version, name = '', ...rest] = path
  if (first === 'kbs' && version === 'v0') {
    return BUILT_IN.has(name) ? `${verb} /kbs/v0/${name}${rest.length > 0 ? '/*' : ''}` : `${verb} other`
  }
  const known = path.join('/')
  return ['healthz', 'readyz', '.well-known/jwks.json'].includes(known) ? `${verb} /${known}` : `${verb} other`
}

interface Histogram {
  readonly counts: number[]
  sum: number
  count: number
}

export class Metrics {
  readonly #requests = new Map<string, number>()
  readonly #durations = new Map<string, Histogram>()
  readonly #gauges: () => Readonly<Record<string, number>>
  #active = 0

  /** @param gauges further values, read when somebody asks; names without the prefix */
  constructor(gauges: () => Readonly<Record<string, number>> = () => ({})) {
    this.#gauges = gauges
  }

  /** The same answers, counted. @param onDone told of each, when it is ready to be sent */
  observing(
    answer: (exchange: HttpExchange) => Promise<HttpReply>,
    onDone: (exchange: HttpExchange, reply: HttpReply, observation: Observation) => void,
  ): (exchange: HttpExchange) => Promise<HttpReply> {
    return async (exchange) => {
      const start = performance.now()
      this.#active++
      try {
        const reply = await answer(exchange)
        const seconds = (performance.now() - start) / 1000
        const observation = { route: routeOf(exchange), status: reply.status, seconds }
        this.#count(observation)
        onDone(exchange, reply, observation)
        return reply
      } finally {
        this.#active--
      }
    }
  }

  /** Text format 0.0.4. */
  render(): string {
    const lines: string[] = ['# TYPE kbs_http_requests_total counter']
    for (const [labels, count] of this.#requests) lines.push(`kbs_http_requests_total{${labels}} ${count}`)
    lines.push('# TYPE kbs_http_request_duration_seconds histogram')
    for (const [route, histogram] of this.#durations) lines.push(...histogramLines(route, histogram))
    lines.push('# TYPE kbs_http_active_connections gauge', `kbs_http_active_connections ${this.#active}`)
    const total = (name: string, route: string, status: (status: number) => boolean): void => {
      lines.push(`# TYPE ${name} counter`, `${name} ${this.#sum(route, status)}`)
    }
    for (const [stage, route] of STAGES) {
      total(`kbs_${stage}_requests_total`, route, () => true)
      total(`kbs_${stage}_successes_total`, route, (status) => status < 400)
      total(`kbs_${stage}_errors_total`, route, (status) => status >= 500)
    }
    total('kbs_attestation_failures_total', 'POST /kbs/v0/attest', (status) => status >= 400 && status < 500)
    total('kbs_policy_approvals_total', 'GET /kbs/v0/resource/*', (status) => status === 200)
    total('kbs_policy_violations_total', 'GET /kbs/v0/resource/*', (status) => status === 403)
    total('kbs_resource_reads_total', 'GET /kbs/v0/resource/*', (status) => status === 200)
    total('kbs_resource_writes_total', 'POST /kbs/v0/resource/*', (status) => status === 200)
    for (const [name, value] of Object.entries(this.#gauges())) {
      lines.push(`# TYPE caisson_verifier_${name} gauge`, `caisson_verifier_${name} ${value}`)
    }
    return `${lines.join('\n')}\n`
  }

  #count({ route, status, seconds }: Observation): void {
    const labels = `route="${route}",status="${status}"`
    this.#requests.set(labels, (this.#requests.get(labels) ?? 0) + 1)
    const histogram = this.#durations.get(route) ?? { counts: BUCKETS.map(() => 0), sum: 0, count: 0 }
    for (const [index, bound] of BUCKETS.entries()) {
      if (seconds <= bound) histogram.counts[index] = (histogram.counts[index] ?? 0) + 1
    }
    histogram.sum += seconds
    histogram.count++
    this.#durations.set(route, histogram)
  }

  #sum(route: string, wanted: (status: number) => boolean): number {
    let sum = 0
    for (const [labels, count] of this.#requests) {
      const [, found, status] = /^route="([^"]*)",status="(\d+)"$/.exec(labels) ?? []
      if (found === route && wanted(Number(status))) sum += count
    }
    return sum
  }
}

const STAGES = [
  ['auth', 'POST /kbs/v0/auth'],
  ['attestation', 'POST /kbs/v0/attest'],
] as const

function histogramLines(route: string, { counts, sum, count }: Histogram): string[] {
  const name = 'kbs_http_request_duration_seconds'
  return [
    ...BUCKETS.map((bound, index) => `${name}_bucket{route="${route}",le="${bound}"} ${counts[index] ?? 0}`),
    `${name}_bucket{route="${route}",le="+Inf"} ${count}`,
    `${name}_sum{route="${route}"} ${sum}`,
    `${name}_count{route="${route}"} ${count}`,
  ]
}
