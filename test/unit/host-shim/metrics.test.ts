import { readFileSync } from 'node:fs'
import { create } from '@bufbuild/protobuf'
import test from 'ava'
import { Histogram, NodeMetrics } from '#host-shim/node/metrics'
import { PodProgress } from '#host-shim/node/pod-progress'
import { metricsText, type PodReport } from '#host-shim/node/pod-report'
import { EventKind, EventSchema } from '#protocol/gen/agent_pb'

const POD: PodReport = {
  id: 's1',
  name: 'web-0',
  namespace: 'shop "a"\nb',
  stage: 'attested',
  refusal: '',
  containers: [{ id: 'c1', name: 'web', state: 'running', exitCode: 0, cpuSeconds: 1.5, memoryBytes: 4096, pids: 2 }],
  pulls: [{ containerId: 'c1', layers: 2, doneBytes: 10, totalBytes: 40, done: false }],
  memory: { relay: 1, backend: 2, vm: 3 },
  agentBytes: 4,
}

test('metrics have a type and labels that no name can break out of', (t) => {
  const metrics = new NodeMetrics()
  metrics.rpc.observe(0.2, { method: 'create' })
  metrics.attestations.add({ outcome: 'ERR_VERIFIER_REFUSED' })
  const lines = metricsText(metrics, [POD]).split('\n').slice(0, -1)
  for (const line of lines) {
    t.regex(
      line,
      /^(?:# (?:HELP|TYPE) caisson_[a-z_]+ .+|caisson_[a-z_]+(?:\{(?:[a-z]+="(?:[^"\\\n]|\\.)*",?)*\})? [0-9.e+-]+)$/,
    )
  }
  const labels = 'namespace="shop \\"a\\"\\nb",pod="web-0"'
  for (const line of [
    `caisson_pod_attested{${labels}} 1`,
    `caisson_pod_vm_bytes{${labels}} 3`,
    `caisson_pod_pull_bytes{${labels},container="web",state="total"} 40`,
    `caisson_container_cpu_seconds_total{${labels},container="web"} 1.5`,
    'caisson_attestations_total{outcome="ERR_VERIFIER_REFUSED"} 1',
    'caisson_rpc_seconds_count{method="create"} 1',
  ]) {
    t.true(lines.includes(line), line)
  }
})

test('a histogram counts each value in every bucket that it fits into', (t) => {
  const histogram = new Histogram('caisson_x_seconds', 'x')
  for (const seconds of [0.0005, 0.3, 7]) histogram.observe(seconds, {})
  const lines = histogram.lines()
  for (const line of [
    'caisson_x_seconds_bucket{le="0.001"} 1',
    'caisson_x_seconds_bucket{le="0.5"} 2',
    'caisson_x_seconds_bucket{le="10"} 3',
    'caisson_x_seconds_bucket{le="+Inf"} 3',
    'caisson_x_seconds_count 3',
  ]) {
    t.true(lines.includes(line), line)
  }
})

test('what a guest tells becomes stage, pull progress and the last refusal', (t) => {
  const progress = new PodProgress()
  const take = (kind: EventKind, more: object = {}) => progress.take(create(EventSchema, { kind, ...more }))
  t.is(progress.stage, 'booting')
  take(EventKind.STAGE_ATTESTED)
  const containerId = 'c1'
  take(EventKind.PULL_MANIFEST, { containerId, layers: 2, totalBytes: 100n })
  take(EventKind.PULL_LAYER, { containerId, layer: 0, doneBytes: 30n })
  take(EventKind.PULL_LAYER, { containerId, layer: 1, doneBytes: 20n })
  take(EventKind.PULL_LAYER, { containerId, layer: 0, doneBytes: 40n })
  t.deepEqual(progress.pulls, [{ containerId, layers: 2, totalBytes: 100, doneBytes: 60, done: false }])
  take(EventKind.PULL_DONE, { containerId })
  t.true(progress.pulls[0]?.done)
  take(EventKind.REFUSED, { containerId, errorCode: 'ERR_IMAGE_UNSIGNED' })
  t.deepEqual([progress.stage, progress.refusal, progress.pulls.length], ['attested', 'ERR_IMAGE_UNSIGNED', 0])
  take(EventKind.FAILED, { errorCode: 'ERR_VERIFIER_REFUSED' })
  t.is(progress.stage, 'refused')
})

test('every panel of the dashboard asks for metrics that a node has', (t) => {
  const metrics = new NodeMetrics()
  metrics.rpc.observe(1, { method: 'create' })
  metrics.boot.observe(1, { stage: 'agent' })
  metrics.attestation.observe(1, {})
  metrics.attestations.add({ outcome: 'attested' })
  metrics.refusals.add({ code: 'ERR_POLICY_DENIED' })
  const known = new Set(['caisson_node_up', ...(metricsText(metrics, [POD]).match(/^caisson_[a-z_]+/gm) ?? [])])
  const { panels } = JSON.parse(readFileSync('deploy/grafana/caisson.json', 'utf8')) as {
    panels: { title: string; targets: { expr: string }[] }[]
  }
  const asked = panels.flatMap(({ targets }) => targets.flatMap(({ expr }) => expr.match(/caisson_[a-z_]+/g) ?? []))
  t.deepEqual(
    asked.filter((name) => !known.has(name)),
    [],
  )
  // And none is left out.
  const base = [...known].map((name) => name.replace(/_(?:sum|count)$/, '_bucket'))
  t.deepEqual(
    [...new Set(base)].filter((name) => !asked.includes(name)),
    [],
  )
})
