/** What the host may ask of a sandbox, as the policy sees it: bounded in form, not yet believed. */
import type { AskedResources } from './resource-rule.ts'

export interface ContainerRequest {
  readonly containerId: string
  /** Rule name; empty: found by the image. */
  readonly name: string
  /** host[:port]/path[:tag][@digest] as the host wrote it. */
  readonly image: string
  /** Undefined: the image's own. */
  readonly args: readonly string[] | undefined
  /** KEY=VALUE */
  readonly env: readonly string[]
  readonly user: string
  readonly workingDir: string
  readonly mounts: readonly MountRequest[]
  /** Supplementary groups. */
  readonly groups?: readonly number[]
  /** Block devices. */
  readonly devices?: readonly DeviceRequest[]
  readonly terminal: boolean
  readonly stdin: boolean
  /** See the processes of others. */
  readonly sharesProcesses: boolean
  readonly resources: AskedResources
}

export interface MountRequest {
  readonly kind: string
  readonly destination: string
  readonly readOnly: boolean
  /** 0: none asked for. */
  readonly sizeLimitBytes: number
  /** Name of the pod's volume; empty: the policy's. */
  readonly volume?: string
}

export interface DeviceRequest {
  /** Where the container asks for it. */
  readonly path: string
  /** The host's word for the disk. */
  readonly disk: string
}

/** Content for a volume of the pod. */
export interface VolumeRequest {
  readonly kind: string
  readonly name: string
}

export interface ExecRequest {
  readonly containerId: string
  readonly args: readonly string[]
  readonly env: readonly string[]
  readonly user: string
  readonly workingDir: string
  readonly terminal: boolean
  readonly stdin: boolean
}

/** Of KEY=VALUE. */
export function nameAndValue(entry: string): [string, string] {
  const split = entry.indexOf('=')
  return [entry.slice(0, split), entry.slice(split + 1)]
}
