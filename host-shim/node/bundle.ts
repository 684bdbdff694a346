/** The bundle of a task: what containerd wrote into config.json, as far as a guest is told of it. */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { MalformedError } from '#protocol/errors'

export interface BundleMount {
  readonly destination: string
  readonly type: string
  readonly source: string
  readonly options: readonly string[]
}

export interface BundleDevice {
  readonly path: string
  /** "b" for block devices, "c" for others. */
  readonly type: string
  /** "major:minor" */
  readonly number: string
}

export interface BundleProcess {
  readonly args: readonly string[]
  readonly env: readonly string[]
  readonly cwd: string
  readonly terminal: boolean
  readonly uid: number
  readonly gid: number
  readonly additionalGids: readonly number[]
}

export interface BundleResources {
  /** Zero: none given. */
  readonly memoryBytes: bigint
  readonly cpuQuotaUs: bigint
  readonly cpuPeriodUs: bigint
  readonly cpuShares: bigint
  readonly pids: bigint
}

export interface Bundle {
  readonly hostname: string
  readonly process: BundleProcess
  readonly mounts: readonly BundleMount[]
  /** Of the host, that the container asks for. */
  readonly devices: readonly BundleDevice[]
  readonly annotations: Readonly<Record<string, string>>
  readonly resources: BundleResources
  /** Path of the network namespace; undefined for the host's own. */
  readonly networkNamespace: string | undefined
  /** Whether the processes of the pod's containers shall see each other. */
  readonly sharesProcesses: boolean
  readonly sysctls: Readonly<Record<string, string>>
}

const MAX_CONFIG_BYTES = 8 * 1024 * 1024

/** @throws MalformedError ERR_BUNDLE */
export async function readBundle(directory: string): Promise<Bundle> {
  const path = join(directory, 'config.json')
  const text = await readFile(path, 'utf8').catch((cause: unknown) => {
    throw malformed(`${path} cannot be read`, cause)
  })
  return parseBundle(text)
}

/** An OCI runtime specification (runtime-spec config.md). @throws MalformedError ERR_BUNDLE */
export function parseBundle(text: string): Bundle {
  if (text.length > MAX_CONFIG_BYTES) throw malformed(`config.json has ${text.length} characters`)
  const root = parseJson(text)
  const linux = objectOf(root, 'linux')
  const namespaces = listOf(linux, 'namespaces')
  const network = namespaces.find((entry) => textOf(entry, 'type') === 'network')
  return {
    hostname: textOf(root, 'hostname'),
    process: parseProcessObject(objectOf(root, 'process')),
    mounts: listOf(root, 'mounts').map((mount) => ({
      destination: textOf(mount, 'destination'),
      type: textOf(mount, 'type'),
      source: textOf(mount, 'source'),
      options: textsOf(mount, 'options'),
    })),
    devices: listOf(linux, 'devices').map((device) => ({
      path: textOf(device, 'path'),
      type: textOf(device, 'type'),
      number: `${wholeOf(device, 'major')}:${wholeOf(device, 'minor')}`,
    })),
    annotations: stringsOf(objectOf(root, 'annotations')),
    resources: parseResources(objectOf(linux, 'resources')),
    networkNamespace: network === undefined ? undefined : textOf(network, 'path') || undefined,
    sharesProcesses: namespaces.some((entry) => textOf(entry, 'type') === 'pid' && textOf(entry, 'path') !== ''),
    sysctls: stringsOf(objectOf(linux, 'sysctl')),
  }
}

/** The process object of an exec, as containerd sends it. @throws MalformedError ERR_BUNDLE */
export function parseBundleProcess(bytes: Uint8Array): BundleProcess {
  if (bytes.byteLength > MAX_CONFIG_BYTES) throw malformed(`a process of ${bytes.byteLength} bytes`)
  return parseProcessObject(parseJson(new TextDecoder().decode(bytes)))
}

/** The LinuxResources object of an update, as containerd sends it. @throws MalformedError ERR_BUNDLE */
export function parseLinuxResources(bytes: Uint8Array): BundleResources {
  if (bytes.byteLength > MAX_CONFIG_BYTES) throw malformed(`resources of ${bytes.byteLength} bytes`)
  return parseResources(parseJson(new TextDecoder().decode(bytes)))
}

function parseProcessObject(value: unknown): BundleProcess {
  const user = objectOf(value, 'user')
  const args = textsOf(value, 'args')
  return {
    args,
    env: textsOf(value, 'env'),
    cwd: textOf(value, 'cwd'),
    terminal: memberOf(value, 'terminal') === true,
    uid: Number(wholeOf(user, 'uid')),
    gid: Number(wholeOf(user, 'gid')),
    additionalGids: listOf(user, 'additionalGids').map((gid) => Number(wholeOf({ gid }, 'gid'))),
  }
}

function parseResources(resources: unknown): BundleResources {
  const cpu = objectOf(resources, 'cpu')
  return {
    memoryBytes: wholeOf(objectOf(resources, 'memory'), 'limit'),
    cpuQuotaUs: wholeOf(cpu, 'quota'),
    cpuPeriodUs: wholeOf(cpu, 'period'),
    cpuShares: wholeOf(cpu, 'shares'),
    pids: wholeOf(objectOf(resources, 'pids'), 'limit'),
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (cause) {
    throw malformed('it is not JSON', cause)
  }
}

function memberOf(value: unknown, name: string): unknown {
  if (value === undefined || value === null) return undefined
  if (typeof value !== 'object' || Array.isArray(value)) throw malformed(`no object around ${name}`)
  return Object.hasOwn(value, name) ? Reflect.get(value, name) : undefined
}

function objectOf(value: unknown, name: string): unknown {
  const found = memberOf(value, name) ?? {}
  if (typeof found !== 'object' || Array.isArray(found)) throw malformed(`${name} is no object`)
  return found
}

function listOf(value: unknown, name: string): readonly unknown[] {
  const found = memberOf(value, name) ?? []
  if (!Array.isArray(found)) throw malformed(`${name} is no list`)
  return found
}

function textOf(value: unknown, name: string): string {
  const found = memberOf(value, name) ?? ''
  if (typeof found !== 'string') throw malformed(`${name} is no text`)
  return found
}

function textsOf(value: unknown, name: string): readonly string[] {
  return listOf(value, name).map((item) => {
    if (typeof item !== 'string') throw malformed(`${name} holds something other than text`)
    return item
  })
}

function stringsOf(value: unknown): Readonly<Record<string, string>> {
  const entries = Object.entries(value ?? {}).map(([name, item]: [string, unknown]) => {
    if (typeof item !== 'string') throw malformed(`annotation ${name} is no text`)
    return [name, item] as const
  })
  return Object.fromEntries(entries)
}

/** Zero when absent; negative numbers stand for "no limit", which is what zero says to the guest. */
function wholeOf(value: unknown, name: string): bigint {
  const found = memberOf(value, name) ?? 0
  if (typeof found !== 'number' || !Number.isInteger(found)) throw malformed(`${name} is no whole number`)
  return found < 0 || !Number.isSafeInteger(found) ? 0n : BigInt(found)
}

function malformed(why: string, cause?: unknown): MalformedError {
  return new MalformedError('ERR_BUNDLE', `the bundle is malformed: ${why}`, {
    hint: 'containerd writes it; check that the runtime is used through its CRI plugin',
    ...(cause === undefined ? {} : { cause }),
  })
}
