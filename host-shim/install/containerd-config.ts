/**
 * What containerd must be told so that it runs pods with Caisson, in the words of each of its versions, and where.
 *
 * 1.6 and 1.7 replace a plugin's whole section by that of an imported file, so only an edit of the main file keeps the
 * operator's settings. From 2.1 on sections are merged, and a file of our own is enough; it must have the main file's
 * version, because containerd converts old names only after merging. 2.0 was not at hand and is edited, which is right
 * whatever it does.
 */
import { dirname, relative } from 'node:path'
import { UsageError } from '#protocol/errors'
import { POD_ANNOTATIONS } from '../node/annotations.ts'
import { type ContainerdVersion, isAtLeast } from './containerd-version.ts'
import { type NodeLayout, RUNTIME_HANDLER, RUNTIME_TYPE, SNAPSHOTTER } from './node-layout.ts'
import { editToml, type Setting, valueAt, writeToml } from './toml-edit.ts'
import { parseToml } from './toml-lines.ts'

/** Of the file's form, not of containerd. */
export type ConfigVersion = 2 | 3

export interface ContainerdConfig {
  /** Undefined: the file states nothing yet. */
  readonly version: ConfigVersion | undefined
  readonly imports: readonly string[]
  /** The snapshotter of all runtimes, where the file chooses one. */
  readonly snapshotter: string | undefined
}

/** What the configuration is written for. */
export interface ContainerdNode {
  readonly version: ContainerdVersion
  readonly layout: NodeLayout
  /** Whether the node's daemon serves snapshots, so that layers of guests' images stay in the registry. */
  readonly snapshotter: boolean
}

export interface ContainerdFiles {
  readonly config: string
  /** Undefined: this version needs none. */
  readonly dropIn: string | undefined
}

const CRI = ['plugins', 'io.containerd.grpc.v1.cri']
const CRI_RUNTIME = ['plugins', 'io.containerd.cri.v1.runtime']
const CRI_IMAGES = ['plugins', 'io.containerd.cri.v1.images']
const CRI_NAMES = ['cri', ...[CRI, CRI_RUNTIME, CRI_IMAGES].map(([, name]) => name)]

/** @throws MalformedError ERR_TOML, UsageError ERR_CONTAINERD_CONFIG, ERR_CONTAINERD_NO_CRI */
export function parseContainerdConfig(text: string, what: string): ContainerdConfig {
  const document = parseToml(text, what)
  if (stringsAt(document, ['disabled_plugins']).some((name) => CRI_NAMES.includes(name))) {
    throw new UsageError(
      'ERR_CONTAINERD_NO_CRI',
      `${what} disables the CRI plugin, so no kubelet can use this containerd`,
      {
        hint: 'Take "cri" off its disabled_plugins',
      },
    )
  }
  const version = document.version
  const isEmpty = Object.keys(document).length === 0
  if (!isEmpty && version !== 2 && version !== 3) {
    const stated = version === undefined ? 'no version, which means 1' : `version ${JSON.stringify(version)}`
    throw new UsageError('ERR_CONTAINERD_CONFIG', `${what} states ${stated}; known are 2 and 3`, {
      hint: 'Let containerd rewrite it: containerd config migrate',
    })
  }
  const globals = [
    [...CRI, 'containerd', 'snapshotter'],
    [...CRI_IMAGES, 'snapshotter'],
  ]
  const snapshotter = globals.map((path) => valueAt(document, path)).find((value) => typeof value === 'string')
  return {
    version: isEmpty ? undefined : version === 3 ? 3 : 2,
    imports: stringsAt(document, ['imports']),
    snapshotter: typeof snapshotter === 'string' && snapshotter !== '' ? snapshotter : undefined,
  }
}

/**
 * Both files with everything in them that Caisson needs.
 * @param text of the main file, without edits of ours; empty when there is none
 * @throws MalformedError ERR_TOML, UsageError ERR_CONTAINERD_CONFIG, ERR_CONTAINERD_NO_CRI, ERR_SNAPSHOTTER_TAKEN, ERR_TOML_EDIT
 */
export function containerdFiles(text: string, node: ContainerdNode): ContainerdFiles {
  const { version, layout } = node
  if (!isAtLeast(version, 1, 6)) {
    throw new UsageError('ERR_CONTAINERD_VERSION', `containerd ${version.text} is older than 1.6`, {
      hint: 'Install containerd 1.6 or later',
    })
  }
  const what = layout.containerdConfig
  const config = parseContainerdConfig(text, what)
  if (config.version === 3 && version.major < 2) {
    throw new UsageError(
      'ERR_CONTAINERD_CONFIG',
      `${what} has version 3, which containerd ${version.text} cannot read`,
      {
        hint: 'Say which containerd the node runs with --containerd, or write the file in version 2',
      },
    )
  }
  const form = config.version ?? (version.major >= 2 ? 3 : 2)
  checkSnapshotter(config, node, what)
  const wanted = settings(form, node)
  const stated: Setting[] = config.version === undefined ? [versionSetting(form)] : []
  if (!isAtLeast(version, 2, 1)) return { config: editToml(text, [...stated, ...wanted], what), dropIn: undefined }
  const isImported = config.imports.some((pattern) => covers(pattern, layout))
  const imports: Setting = { table: [], key: 'imports', value: [...config.imports, layout.containerdDropIn] }
  return {
    config: editToml(text, [...stated, ...(isImported ? [] : [imports])], what),
    dropIn: `# Written by caisson node install; caisson node uninstall removes it.\nversion = ${form}\n\n${writeToml(wanted)}`,
  }
}

/** Whether `document` (a file, or containerd's own dump) runs pods with Caisson; the paths that are not as they must be. */
export function missingSettings(document: unknown, form: ConfigVersion, node: ContainerdNode): readonly string[] {
  return settings(form, node)
    .filter(({ table, key, value }) => JSON.stringify(valueAt(document, [...table, key])) !== JSON.stringify(value))
    .map(({ table, key, value }) => `[${table.join('.')}] ${key} = ${JSON.stringify(value)}`)
}

/** Nothing here is left to a default: defaults differ between versions. */
function settings(form: ConfigVersion, { version, layout, snapshotter }: ContainerdNode): readonly Setting[] {
  const perRuntime = isAtLeast(version, 1, 7)
  const runtime = [...(form === 3 ? CRI_RUNTIME : CRI), 'containerd', 'runtimes', RUNTIME_HANDLER]
  const images = form === 3 ? CRI_IMAGES : [...CRI, 'containerd']
  const proxy = ['proxy_plugins', SNAPSHOTTER]
  const ofRuntime: readonly Setting[] = [
    { table: runtime, key: 'runtime_type', value: RUNTIME_TYPE },
    // 1.6 takes the setting and ignores it: it looks on its PATH alone (`shimLink`).
    ...(perRuntime ? [{ table: runtime, key: 'runtime_path', value: layout.shim }] : []),
    { table: runtime, key: 'pod_annotations', value: [POD_ANNOTATIONS] },
    // "Privileged" means the guest's devices; the host's are none of the pod's business.
    { table: runtime, key: 'privileged_without_host_devices', value: true },
  ]
  if (!snapshotter) return ofRuntime
  return [
    { table: proxy, key: 'type', value: 'snapshot' },
    { table: proxy, key: 'address', value: layout.snapshotterSocket },
    // From here CRI learns which file system to report the use of.
    ...(perRuntime ? [{ table: [...proxy, 'exports'], key: 'root', value: layout.snapshots }] : []),
    ...ofRuntime,
    ...(perRuntime ? [{ table: runtime, key: 'snapshotter', value: SNAPSHOTTER }] : []),
    // The snapshotter learns an image's name from these.
    { table: images, key: 'disable_snapshot_annotations', value: false },
    ...(perRuntime ? [] : [{ table: images, key: 'snapshotter', value: SNAPSHOTTER }]),
    // From 2.0 on pulls choose their snapshotter here, containers in the runtime's table.
    ...(version.major >= 2
      ? [{ table: [...CRI_IMAGES, 'runtime_platforms', RUNTIME_HANDLER], key: 'snapshotter', value: SNAPSHOTTER }]
      : []),
  ]
}

/** 1.6 knows one snapshotter for all runtimes: ours takes the place of overlayfs and does the same for other images. */
function checkSnapshotter({ snapshotter }: ContainerdConfig, node: ContainerdNode, what: string): void {
  if (!node.snapshotter || isAtLeast(node.version, 1, 7)) return
  if (snapshotter === undefined || ['overlayfs', SNAPSHOTTER].includes(snapshotter)) return
  throw new UsageError('ERR_SNAPSHOTTER_TAKEN', `${what} chooses the snapshotter ${snapshotter} for all runtimes`, {
    hint: 'containerd 1.6 has one snapshotter, and ours can stand in for overlayfs only: use containerd 1.7 or later on this node',
  })
}

function versionSetting(form: ConfigVersion): Setting {
  return { table: [], key: 'version', value: form }
}

/** Patterns that an operator would write; any other is no cover, and an import too many does no harm. */
function covers(pattern: string, { containerdDropIn, containerdConfig }: NodeLayout): boolean {
  const absolute = pattern.startsWith('/') ? containerdDropIn : relative(dirname(containerdConfig), containerdDropIn)
  const folder = absolute.slice(0, absolute.lastIndexOf('/') + 1)
  return [absolute, `${folder}*.toml`, `${folder}*`].includes(pattern)
}

function stringsAt(document: unknown, path: readonly string[]): readonly string[] {
  const value = valueAt(document, path)
  return Array.isArray(value) ? value.filter((item) => typeof item === 'string') : []
}
