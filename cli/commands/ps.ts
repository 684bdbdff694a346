import { connectPod, listPods, type PodSummary } from '#host-shim/pod/control'
import { ContainerState } from '#protocol/gen/agent_pb'
import type { CommandSpec } from '../command.ts'
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
  options: STATE_OPTION,
  examples: ['caisson ps', 'caisson ps --json'],
  run: async (invocation) => {
    const root = stateRootOf(invocation)
    const rows = await Promise.all((await listPods(root)).map((pod) => describe(root, pod)))
    const table = [
      ['ID', 'STATE', 'PLATFORM', 'IMAGE', 'DIGEST'],
      ...rows.map((row) => [row.id, row.state, row.platform, row.image, row.imageDigest]),
    ]
    const widths = [0, 1, 2, 3].map((column) => Math.max(...table.map((row) => (row[column] ?? '').length)))
    const text = table.map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    invocation.out.result(rows, text.join('\n'))
    return 0
  },
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
