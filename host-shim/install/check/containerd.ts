/** Whether containerd knows the runtime: on disk, as it reads it, and as it runs. */
import { existsSync } from 'node:fs'
import { connect } from 'node:net'
import { status as GrpcStatus } from '@grpc/grpc-js'
import { errorText } from '#protocol/errors'
import { Snapshots } from '../../containerd/gen/snapshots_pb.ts'
import { GrpcClient } from '../../containerd/grpc.ts'
import { askContainerdVersion, type ContainerdVersion, isAtLeast } from '../containerd-version.ts'
import { ignoredSettings } from '../install.ts'
import { type NodeLayout, RUNTIME_HANDLER, SERVICE, SNAPSHOTTER } from '../node-layout.ts'
import { askCriStatus, type CriStatus } from './cri-status.ts'
import { type Finding, lacking, ok } from './finding.ts'

const TIMEOUT_MS = 10_000

/** @param snapshotter whether the installation gave containerd ours */
export async function checkContainerd(
  layout: NodeLayout,
  program: string | undefined,
  snapshotter: boolean,
): Promise<readonly Finding[]> {
  const version = program === undefined ? undefined : await askContainerdVersion(program).catch(() => undefined)
  const read =
    program === undefined || version === undefined ? [] : [await checkConfig(layout, program, version, snapshotter)]
  const running = await askCriStatus(layout.containerdSocket, TIMEOUT_MS).catch(errorText)
  return [
    judgeVersion(version, program),
    ...read,
    judgeCri(running, layout),
    ...(snapshotter ? [await checkSnapshotter(layout)] : []),
    await checkDaemon(layout),
  ]
}

function judgeVersion(version: ContainerdVersion | undefined, program: string | undefined): Finding {
  const needed = 'containerd 1.6, 1.7 or 2.x'
  if (version !== undefined && isAtLeast(version, 1, 6)) return ok('containerd-version', needed, version.text)
  const found = program === undefined ? 'none' : `${program}: ${version?.text ?? 'does not run'}`
  return lacking('containerd-version', 'missing', { needed, found, remedy: 'Install it: apt-get install containerd' })
}

async function checkConfig(
  layout: NodeLayout,
  program: string,
  version: ContainerdVersion,
  snapshotter: boolean,
): Promise<Finding> {
  const needed = `the runtime ${RUNTIME_HANDLER}${snapshotter ? ` and the snapshotter ${SNAPSHOTTER}` : ''} in what containerd reads from ${layout.containerdConfig}`
  const missing = await ignoredSettings(program, { version, layout, snapshotter }).catch((error: unknown) => [
    errorText(error),
  ])
  if (missing.length === 0) return ok('containerd-config', needed, 'all settings in effect')
  return lacking('containerd-config', 'missing', {
    needed,
    found: inShort(missing),
    remedy: 'Run: caisson node install',
  })
}

/** Before an installation every setting is missing, and one says it all. */
function inShort(missing: readonly string[]): string {
  return missing.length <= 2
    ? missing.join('; ')
    : `${missing.length} settings are not in effect, ${missing[0]} among them`
}

/** @param running what CRI answered, or why it did not */
export function judgeCri(running: CriStatus | string, layout: NodeLayout): Finding {
  const needed = `a containerd that runs with the runtime ${RUNTIME_HANDLER}`
  if (typeof running === 'string') {
    const found = `no answer of CRI on ${layout.containerdSocket}: ${running}`
    return lacking('containerd-cri', 'missing', {
      needed,
      found,
      remedy: 'Start containerd, and look at its log: journalctl -u containerd',
    })
  }
  if (!running.runtimes.includes(RUNTIME_HANDLER)) {
    const found = `runtimes ${running.runtimes.join(', ') || 'unknown'}`
    return lacking('containerd-cri', 'missing', {
      needed,
      found,
      remedy: 'Restart containerd, so that it reads its configuration: pods go on',
    })
  }
  if (running.conditions.RuntimeReady !== true) {
    return lacking('containerd-cri', 'missing', {
      needed,
      found: 'CRI is not ready',
      remedy: 'Look at: journalctl -u containerd',
    })
  }
  if (running.conditions.NetworkReady === true)
    return ok('containerd-cri', needed, `runtimes ${running.runtimes.join(', ')}`)
  return lacking('containerd-cri', 'warning', {
    needed,
    found: 'the network is not ready: pods can have none but the host’s, which no VM takes',
    remedy: 'Install a CNI configuration (/etc/cni/net.d)',
  })
}

/** A question that every snapshotter answers: one whose snapshot is not there says so. */
async function checkSnapshotter({ snapshotterSocket }: NodeLayout): Promise<Finding> {
  const needed = `a snapshotter that answers on ${snapshotterSocket}`
  using client = new GrpcClient(snapshotterSocket)
  const options = { timeoutMs: TIMEOUT_MS, metadata: { 'containerd-namespace': 'k8s.io' } }
  const question = { snapshotter: SNAPSHOTTER, key: 'k8s.io/0/caisson-node-check' }
  const failure = await client.unary(Snapshots.method.stat, question, options).then(
    () => undefined,
    (error: unknown) => error,
  )
  const code = failure instanceof Error && 'code' in failure ? failure.code : undefined
  if (failure === undefined || code === GrpcStatus.NOT_FOUND) return ok('snapshotter', needed, 'it answers')
  const found = existsSync(snapshotterSocket) ? errorText(failure) : `no ${snapshotterSocket}`
  return lacking('snapshotter', 'missing', { needed, found, remedy: restartOf('it is part of the node’s daemon') })
}

async function checkDaemon({ nodeSocket, nodeLog }: NodeLayout): Promise<Finding> {
  const needed = `a daemon that answers on ${nodeSocket}`
  const answers = await new Promise<boolean>((resolve) => {
    const socket = connect(nodeSocket)
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false))
    socket.once('connect', () => socket.destroy())
  })
  if (answers) return ok('node-daemon', needed, 'it answers')
  const found = existsSync(nodeSocket) ? 'nobody listens there any more' : `no ${nodeSocket}`
  return lacking('node-daemon', 'missing', { needed, found, remedy: restartOf(`its log is ${nodeLog}`) })
}

function restartOf(why: string): string {
  return `Start it: systemctl restart ${SERVICE}, or what \`caisson node install\` printed; ${why}`
}
