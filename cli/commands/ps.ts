import { askDaemon } from '#host-shim/node/ask-daemon'
import type { PodReport } from '#host-shim/node/pod-report'
import { connectPod, listPods, type PodSummary } from '#host-shim/pod/control'
import { ContainerState } from '#protocol/gen/agent_pb'
import type { CommandSpec, Invocation } from '../command.ts'
import { STATE_OPTION, stateRootOf } from '../pods.ts'

interface Row {
  readonly id: string
  readonly state: string
  readonly image: string
  readonly imageDigest: string
  readonly platform: string
}

export const ps: CommandSpec = {
  path: 'ps',
  summary: 'Lists confidential containers: what their guests say of them, and what crashed runs left behind.',
  operands: '',
  minOperands: 0,
  maxOperands: 0,
  options: {
    ...STATE_OPTION,
    pods: { type: 'boolean', help: 'those of Kubernetes on this node, as its daemon tells' },
    socket: {
      type: 'string',
      placeholder: 'PATH',
      help: 'of the daemon, for --pods',
      default: '/run/caisson/node.sock',
    },
  },
  examples: ['caisson ps', 'caisson ps --json', 'caisson ps --pods'],
  run: async (invocation) => {
    if (invocation.flag('pods')) return listNodePods(invocation)
    const root = stateRootOf(invocation)
    const rows = await Promise.all((await listPods(root)).map((pod) => describe(root, pod)))
    const table = [
      ['ID', 'STATE', 'PLATFORM', 'IMAGE', 'DIGEST'],
      ...rows.map((row) => [row.id, row.state, row.platform, row.image, row.imageDigest]),
    ]
    invocation.out.result(rows, aligned(table))
    return 0
  },
}

function aligned(table: readonly (readonly string[])[]): string {
  const columns = table[0]?.keys() ?? []
  const widths = [...columns].map((column) => Math.max(...table.map((row) => (row[column] ?? '').length)))
  const text = table.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join('  ')
      .trimEnd(),
  )
  return text.join('\n')
}

async function listNodePods(invocation: Invocation): Promise<number> {
  // The daemon is of the same installation.
  const pods = JSON.parse(await askDaemon(invocation.required('socket'), 'report')) as readonly PodReport[]
  const table = pods.flatMap((pod) => {
    const head = [pod.namespace, pod.name, pod.refusal === '' ? pod.stage : `${pod.stage} (${pod.refusal})`]
    const rows = pod.containers.map(({ id, name, state, exitCode }) => {
      const pull = pod.pulls.find(({ containerId, done }) => containerId === id && !done)
      const percent = pull === undefined || pull.totalBytes === 0 ? 0 : (100 * pull.doneBytes) / pull.totalBytes
      if (pull !== undefined) return [...head, name, `pulling ${Math.round(percent)} %`]
      return [...head, name, state === 'stopped' ? `stopped (${exitCode})` : state]
    })
    return rows.length === 0 ? [[...head, '', '']] : rows
  })
  invocation.out.result(pods, aligned([['NAMESPACE', 'POD', 'STAGE', 'CONTAINER', 'STATE'], ...table]))
  return 0
}

async function describe(root: string, pod: PodSummary): Promise<Row> {
  const labels = pod.record?.labels ?? {}
  const row = { id: pod.id, image: labels.image ?? '', platform: pod.record?.platform ?? '', imageDigest: '' }
  if (pod.state === 'orphaned') return { ...row, state: 'orphaned' }
  try {
    using handle = await connectPod(root, pod.id)
    const [container] = await handle.agent.listContainers()
    return {
      ...row,
      state: STATE_TEXT[container?.state ?? ContainerState.UNSPECIFIED] ?? 'starting',
      imageDigest: container?.imageDigest ?? '',
    }
  } catch {
    return { ...row, state: 'starting' } // the guest does not answer yet, or not any more
  }
}

const STATE_TEXT: Readonly<Record<number, string>> = {
  [ContainerState.UNSPECIFIED]: 'starting',
  [ContainerState.CREATED]: 'created',
  [ContainerState.RUNNING]: 'running',
  [ContainerState.EXITED]: 'exited',
}
