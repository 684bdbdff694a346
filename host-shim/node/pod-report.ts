/** What a node's daemon tells of its pods: to `caisson ps --pods`, and as metrics. */
import { readFile } from 'node:fs/promises'
import type { GetStatsResponse } from '#protocol/gen/agent_pb'
import { ANNOTATION } from './annotations.ts'
import { readBundle } from './bundle.ts'
import { type Gauge, gaugeLines, type NodeMetrics } from './metrics.ts'
import type { NodePod } from './node-pod.ts'
import type { PullState } from './pod-progress.ts'

export interface ContainerReport {
  readonly id: string
  readonly name: string
  readonly state: string
  readonly exitCode: number
  readonly cpuSeconds: number
  readonly memoryBytes: number
  readonly pids: number
}

export interface PodReport {
  readonly id: string
  readonly name: string
  readonly namespace: string
  /** booting, network, attesting, attested, refused; lost: the machine is gone */
  readonly stage: string
  /** Code of the last refusal; empty when there was none. */
  readonly refusal: string
  readonly containers: readonly ContainerReport[]
  readonly pulls: readonly PullState[]
  /** Proportional memory (Pss) of the pod's processes on this machine, bytes. */
  readonly memory: { readonly relay: number; readonly backend: number; readonly vm: number }
  /** Of the agent's own process in the guest, bytes; 0 when it does not say. */
  readonly agentBytes: number
}

export async function reportPod(
  pod: Pick<NodePod, 'record' | 'machine' | 'progress' | 'processes'>,
): Promise<PodReport> {
  const { record, machine, progress } = pod
  const { annotations } = await readBundle(record.bundle).catch(() => ({ annotations: {} as Record<string, string> }))
  const status = await machine?.agent.getStatus({ timeoutMs: 2000 }).catch(() => undefined)
  const tasks = pod.processes.tasks().filter(({ kind }) => kind === 'container')
  const backend = record.machine?.pid ?? 0
  return {
    id: record.sandboxId,
    name: annotations[ANNOTATION.podName] ?? '',
    namespace: annotations[ANNOTATION.podNamespace] ?? '',
    stage:
      machine === undefined && progress.stage !== 'booting' && progress.stage !== 'refused' ? 'lost' : progress.stage,
    refusal: progress.refusal,
    containers: await Promise.all(
      tasks.map(async ({ id, bundle, status: state, exitStatus }) => {
        const names = await readBundle(bundle).catch(() => undefined)
        // A guest that stands still is asked no more: whoever asks for the node's numbers waits for all of its pods.
        const stats = status === undefined ? undefined : await machine?.agent.getStats(id).catch(() => undefined)
        return {
          id,
          name: names?.annotations[ANNOTATION.containerName] ?? '',
          state,
          exitCode: exitStatus,
          ...countersOf(stats),
        }
      }),
    ),
    pulls: progress.pulls,
    memory: {
      relay: await proportionalBytes(record.relay?.pid ?? 0),
      backend: await proportionalBytes(backend),
      vm: await proportionalBytes(await onlyChild(backend)),
    },
    agentBytes: Number(status?.agentResidentBytes ?? 0n),
  }
}

function countersOf(stats: GetStatsResponse | undefined) {
  return {
    cpuSeconds: Number(stats?.cpuUsageUs ?? 0n) / 1_000_000,
    memoryBytes: Number(stats?.memoryBytes ?? 0n),
    pids: Number(stats?.pids ?? 0n),
  }
}

/** The exposition of everything: what was counted since the daemon started, and what the pods are now. */
export function metricsText(metrics: NodeMetrics, pods: readonly PodReport[]): string {
  const ofPods = (name: string, help: string, value: (pod: PodReport) => number): Gauge => ({
    name,
    help,
    type: 'gauge',
    values: pods.map((pod) => ({ labels: podLabels(pod), value: value(pod) })),
  })
  const ofContainers = (
    name: string,
    help: string,
    type: Gauge['type'],
    value: (container: ContainerReport) => number,
  ): Gauge => ({
    name,
    help,
    type,
    values: pods.flatMap((pod) =>
      pod.containers.map((container) => ({
        labels: { ...podLabels(pod), container: container.name },
        value: value(container),
      })),
    ),
  })
  const gauges: readonly Gauge[] = [
    { name: 'caisson_pods', help: 'Pods of this node.', type: 'gauge', values: [{ labels: {}, value: pods.length }] },
    ofPods('caisson_pod_attested', 'Whether the guest has attested.', ({ stage }) => Number(stage === 'attested')),
    ofPods('caisson_pod_relay_bytes', 'Memory of the process that serves containerd.', ({ memory }) => memory.relay),
    ofPods('caisson_pod_backend_bytes', 'Memory of caisson-pod.', ({ memory }) => memory.backend),
    ofPods('caisson_pod_vm_bytes', 'Memory of the virtual machine.', ({ memory }) => memory.vm),
    ofPods('caisson_pod_agent_bytes', 'Memory of the agent in the guest.', ({ agentBytes }) => agentBytes),
    {
      name: 'caisson_pod_pull_bytes',
      help: 'Compressed bytes of images that the guest pulls: done, and in total.',
      type: 'gauge',
      values: pods.flatMap((pod) => pod.pulls.flatMap((pull) => pullValues(pod, pull))),
    },
    ofContainers('caisson_container_cpu_seconds_total', 'Processor time.', 'counter', ({ cpuSeconds }) => cpuSeconds),
    ofContainers(
      'caisson_container_memory_bytes',
      'Memory inside the guest.',
      'gauge',
      ({ memoryBytes }) => memoryBytes,
    ),
    ofContainers('caisson_container_processes', 'Processes inside the guest.', 'gauge', ({ pids }) => pids),
  ]
  return [...gauges.flatMap(gaugeLines), ...metrics.lines(), ''].join('\n')
}

function podLabels({ name, namespace }: PodReport) {
  return { namespace, pod: name }
}

function pullValues(pod: PodReport, { containerId, doneBytes, totalBytes }: PullState): Gauge['values'] {
  const container = pod.containers.find(({ id }) => id === containerId)?.name ?? containerId
  const labels = { ...podLabels(pod), container }
  return [
    { labels: { ...labels, state: 'done' }, value: doneBytes },
    { labels: { ...labels, state: 'total' }, value: totalBytes },
  ]
}

/** proc_pid_smaps(5); 0 for a process that is gone. */
async function proportionalBytes(pid: number): Promise<number> {
  if (pid === 0) return 0
  const text = await readFile(`/proc/${pid}/smaps_rollup`, 'utf8').catch(() => '')
  return Number(/^Pss:\s+(\d+) kB$/m.exec(text)?.[1] ?? 0) * 1024
}

async function onlyChild(pid: number): Promise<number> {
  const text = await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8').catch(() => '')
  return Number(text.trim().split(' ')[0] ?? 0)
}
