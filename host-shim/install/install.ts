/** Makes a machine a node for confidential pods: programs, service, containerd's configuration. */
import { execFile } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { UnavailableError } from '#protocol/errors'
import type { Accelerator } from '#vmm/types'
import { type ContainerdNode, containerdFiles, missingSettings } from './containerd-config.ts'
import { type ContainerdVersion, isAtLeast } from './containerd-version.ts'
import { InstallStore } from './install-record.ts'
import { type NodeLayout, SERVICE } from './node-layout.ts'
import { runtimeClassYaml } from './overhead.ts'
import { type DaemonOptions, type ServiceKind, shimConfig, systemdUnit } from './service.ts'
import { textDiff } from './text-diff.ts'
import { parseToml } from './toml-lines.ts'
import { apply, isChanged, operatorsText, type Planned, type PlannedFile, takeBack } from './transaction.ts'

export interface InstallOptions {
  readonly layout: NodeLayout
  readonly containerd: ContainerdVersion
  /** Undefined: containerd is not there to be asked, and its version was named. */
  readonly containerdProgram: string | undefined
  readonly service: ServiceKind
  readonly daemon: DaemonOptions
  /** What pods will run with; decides how much memory is set aside for them. */
  readonly accelerator: Accelerator
  /** The shim as it was built. */
  readonly shimProgram: string
  /** Words that start `caisson` from where it lies now. */
  readonly caisson: readonly string[]
  /** Where it finds the guest image that was built for it; undefined: the user's cache directory. */
  readonly cacheHome: string | undefined
}

export interface PlannedChange {
  readonly path: string
  /** Lines with "-" and "+", or what a binary file is. */
  readonly diff: string
}

export interface InstallPlan {
  readonly files: readonly Planned[]
  /** Those that are not as planned yet, in the order in which they will be written. */
  readonly changes: readonly PlannedChange[]
}

const TIMEOUT_MS = 20_000

/**
 * Everything that an installation writes; containerd's configuration last, so that it never names what is not there.
 * @throws what `containerdFiles` throws, UnavailableError ERR_NOT_BUILT
 */
export function planInstall(options: InstallOptions): InstallPlan {
  const { layout, daemon, service } = options
  if (!existsSync(options.shimProgram)) {
    throw new UnavailableError('ERR_NOT_BUILT', `${options.shimProgram} is not there`, {
      hint: 'Run: node native/build.mjs',
    })
  }
  const text = (path: string, content: string, mode = 0o644): PlannedFile => ({
    path,
    content: Buffer.from(content),
    mode,
  })
  const containerd = containerdFiles(operatorsText(layout.containerdConfig) ?? '', nodeOf(options))
  const files: Planned[] = [
    text(layout.launcher, launcher(options), 0o755),
    { path: layout.shim, content: readFileSync(options.shimProgram), mode: 0o755 },
    ...(isAtLeast(options.containerd, 1, 7) || layout.shimLink === layout.shim
      ? []
      : [{ path: layout.shimLink, target: layout.shim }]),
    text(layout.shimConfig, shimConfig(layout, daemon, service)),
    text(layout.runtimeClass, runtimeClassYaml(options.accelerator)),
    ...(service === 'systemd'
      ? [text(layout.unit, systemdUnit(layout, daemon)), { path: layout.unitWanted, target: `../${SERVICE}` }]
      : []),
    ...(containerd.dropIn === undefined ? [] : [text(layout.containerdDropIn, containerd.dropIn)]),
    { ...text(layout.containerdConfig, containerd.config), edited: true },
  ]
  return { files, changes: files.filter(isChanged).map(describe) }
}

/**
 * Writes the plan, then asks containerd what it reads. Can be repeated, also after it was cut short.
 * @throws UnavailableError ERR_CONTAINERD_IGNORES after taking everything back, MalformedError ERR_INSTALL_RECORD
 */
export async function install(options: InstallOptions, plan: InstallPlan): Promise<void> {
  const { layout, containerdProgram } = options
  const store = new InstallStore(layout.installRecord)
  apply(store, plan.files)
  if (containerdProgram === undefined) return
  try {
    const missing = await ignoredSettings(containerdProgram, nodeOf(options))
    if (missing.length > 0) throw ignores(layout, `it does not take over ${missing.join('; ')}`)
  } catch (error) {
    takeBack(store)
    throw error
  }
}

/**
 * Settings that containerd does not have in effect with its configuration as it is on disk.
 * @throws UnavailableError ERR_CONTAINERD_IGNORES when it refuses the configuration
 */
export async function ignoredSettings(program: string, node: ContainerdNode): Promise<readonly string[]> {
  const { layout } = node
  const { stdout } = await promisify(execFile)(program, ['--config', layout.containerdConfig, 'config', 'dump'], {
    timeout: TIMEOUT_MS,
    maxBuffer: 1024 * 1024,
  }).catch((cause: unknown) => {
    throw ignores(layout, 'it refuses the file', cause)
  })
  const dump = parseToml(stdout, 'the output of containerd config dump')
  return missingSettings(dump, dump.version === 3 ? 3 : 2, node)
}

function nodeOf({ layout, containerd, daemon }: InstallOptions): ContainerdNode {
  return { layout, version: containerd, snapshotter: daemon.guestImages.length > 0 }
}

/** The operator's programs first, then those of the distribution. */
export function findContainerd({ root }: NodeLayout, path: string = process.env.PATH ?? ''): string | undefined {
  const inRoot = ['usr/local/sbin', 'usr/local/bin', 'usr/sbin', 'usr/bin', 'opt/bin'].map((folder) =>
    join(root, folder),
  )
  return [...inRoot, ...path.split(':').filter((folder) => folder.startsWith('/'))]
    .map((folder) => join(folder, 'containerd'))
    .find((program) => existsSync(program))
}

function launcher({ caisson, cacheHome }: InstallOptions): string {
  const quoted = (word: string): string => `'${word.replaceAll("'", "'\\''")}'`
  return [
    '#!/bin/sh',
    '# Written by caisson node install.',
    'unset NODE_EXTRA_CA_CERTS',
    ...(cacheHome === undefined ? [] : [`export XDG_CACHE_HOME=${quoted(cacheHome)}`]),
    `exec ${caisson.map(quoted).join(' ')} "$@"`,
    '',
  ].join('\n')
}

function describe(planned: Planned): PlannedChange {
  const { path } = planned
  if ('target' in planned) return { path, diff: `+ link to ${planned.target}` }
  const after = Buffer.from(planned.content)
  if (after.includes(0)) return { path, diff: `+ program of ${after.byteLength} bytes` }
  return {
    path,
    diff: textDiff(existsSync(path) ? readFileSync(path, 'utf8') : '', after.toString()) || '(owner or mode)',
  }
}

function ignores({ containerdConfig }: NodeLayout, why: string, cause?: unknown): UnavailableError {
  return new UnavailableError(
    'ERR_CONTAINERD_IGNORES',
    `containerd was asked what it reads from ${containerdConfig}: ${why}`,
    {
      hint: 'The node is as it was before. Look at: containerd --config FILE config dump',
      ...(cause === undefined ? {} : { cause }),
    },
  )
}
