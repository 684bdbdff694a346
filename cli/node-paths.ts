/** Where the parts of a node lie; `caisson node serve` and `caisson node gc` must agree. */
import type { Invocation, OptionSpec } from './command.ts'

export const NODE_STATE_OPTION: Readonly<Record<string, OptionSpec>> = {
  state: { type: 'string', placeholder: 'DIR', help: 'records and machines of pods', default: '/run/caisson' },
}

export const NODE_PATH_OPTIONS: Readonly<Record<string, OptionSpec>> = {
  ...NODE_STATE_OPTION,
  socket: { type: 'string', placeholder: 'PATH', help: 'where shims connect (default: node.sock in --state)' },
  snapshotter: {
    type: 'string',
    placeholder: 'PATH',
    help: 'where containerd’s proxy plugin connects (default: snapshotter.sock in --state)',
  },
  snapshots: {
    type: 'string',
    placeholder: 'DIR',
    help: 'layers and snapshots of images that this machine fetches',
    default: '/var/lib/caisson/snapshots',
  },
  containerd: {
    type: 'string',
    placeholder: 'PATH',
    help: 'containerd’s socket',
    default: '/run/containerd/containerd.sock',
  },
}

export interface NodePaths {
  readonly stateRoot: string
  readonly socket: string
  readonly snapshotter: string
  readonly snapshots: string
  readonly containerd: string
}

export function nodePaths(invocation: Invocation): NodePaths {
  const stateRoot = invocation.required('state')
  return {
    stateRoot,
    socket: invocation.string('socket') ?? `${stateRoot}/node.sock`,
    snapshotter: invocation.string('snapshotter') ?? `${stateRoot}/snapshotter.sock`,
    snapshots: invocation.required('snapshots'),
    containerd: invocation.required('containerd'),
  }
}
