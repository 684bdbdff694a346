/** Options that the commands about a node's installation share. */
import { fileURLToPath } from 'node:url'
import { askContainerdVersion, type ContainerdVersion, namedVersion } from '#host-shim/install/containerd-version'
import { findContainerd } from '#host-shim/install/install'
import { type NodeLayout, nodeLayout } from '#host-shim/install/node-layout'
import { UnavailableError } from '#protocol/errors'
import type { Invocation, OptionSpec } from './command.ts'

export const NODE_OPTIONS: Readonly<Record<string, OptionSpec>> = {
  root: { type: 'string', placeholder: 'DIR', help: 'a private node: every path lies below DIR', default: '/' },
  prefix: { type: 'string', placeholder: 'DIR', help: 'folder of programs below the root', default: '/usr/local' },
  'containerd-config': { type: 'string', placeholder: 'FILE', help: 'default: etc/containerd/config.toml' },
  'containerd-socket': { type: 'string', placeholder: 'PATH', help: 'default: run/containerd/containerd.sock' },
}

export const CONTAINERD_OPTIONS: Readonly<Record<string, OptionSpec>> = {
  containerd: { type: 'string', placeholder: '1.6|1.7|2|auto', help: 'the version of the node', default: 'auto' },
  'containerd-program': { type: 'string', placeholder: 'FILE', help: 'default: below the root, then on PATH' },
}

/** @throws UsageError ERR_NODE_LAYOUT */
export function layoutOf(invocation: Invocation): NodeLayout {
  return nodeLayout({
    root: invocation.required('root'),
    prefix: invocation.required('prefix'),
    containerdConfig: invocation.string('containerd-config'),
    containerdSocket: invocation.string('containerd-socket'),
  })
}

export interface FoundContainerd {
  readonly version: ContainerdVersion
  /** Undefined: its version was named, and it is not here. */
  readonly program: string | undefined
}

/** @throws UnavailableError ERR_CONTAINERD_MISSING, MalformedError ERR_CONTAINERD_VERSION */
export async function containerdOf(invocation: Invocation, layout: NodeLayout): Promise<FoundContainerd> {
  const program = invocation.string('containerd-program') ?? findContainerd(layout)
  const choice = invocation.oneOf('containerd', ['1.6', '1.7', '2', 'auto'])
  if (choice !== 'auto') return { version: namedVersion(choice), program: invocation.string('containerd-program') }
  if (program !== undefined) return { version: await askContainerdVersion(program), program }
  throw new UnavailableError('ERR_CONTAINERD_MISSING', 'there is no containerd on this machine', {
    hint: 'Install containerd 1.6 or later, or say which version the node runs: --containerd 1.6, 1.7 or 2',
  })
}

/** Words that start this `caisson`, wherever it lies. */
export function caissonWords(): readonly string[] {
  return [
    process.execPath,
    '--disable-warning=ExperimentalWarning',
    fileURLToPath(new URL('caisson.mjs', import.meta.url)),
  ]
}
