/**
 * The smallest change of a policy that admits a request: the document is edited where the denial points, until nothing is
 * denied any more. Comments and order stay. Another image is never proposed: that is another decision than a wider rule.
 */
import { type Document, isMap, parseDocument } from 'yaml'
import { DeniedError } from '#protocol/errors'
import type { ContainerConditions } from './container-conditions.ts'
import { PolicyEngine } from './engine.ts'
import { bytesOf, milliCpusOf } from './quantity.ts'
import type { ContainerRequest } from './requests.ts'
import { parseWorkloadPolicy } from './workload.ts'

export interface Denial {
  readonly field: string
  readonly allowed: string
  readonly asked: string
}

export interface Explanation {
  /** Every difference between the request and the policy, in the order in which they are met; empty: admitted. */
  readonly denials: readonly Denial[]
  /** The policy that admits the request; undefined where no wider rule would be the same decision. */
  readonly patched: string | undefined
  /** "containers[0].env.MODE: debug → [debug, test]" */
  readonly changes: readonly string[]
}

/** A rule has fewer fields than this, and each is widened at most once for each thing that is asked. */
const MAX_ROUNDS = 600

/** @param policyText a policy that parses. `conditions`: its own (`loadConditions`); no change of other fields changes them */
export function explainRequest(
  policyText: string,
  request: ContainerRequest,
  conditions?: ContainerConditions,
): Explanation {
  const document = parseDocument(policyText)
  const denials: Denial[] = []
  const changes: string[] = []
  for (let round = 0; round < MAX_ROUNDS; round++) {
    const denial = denialOf(document.toString({ lineWidth: 0 }), request, conditions)
    if (denial === undefined) {
      return { denials, changes, patched: denials.length === 0 ? undefined : document.toString({ lineWidth: 0 }) }
    }
    denials.push(denial)
    const change = widen(document, denial, request)
    if (change === undefined) break
    changes.push(change)
  }
  return { denials, changes: [], patched: undefined }
}

function denialOf(
  policyText: string,
  request: ContainerRequest,
  conditions: ContainerConditions | undefined,
): Denial | undefined {
  try {
    new PolicyEngine(parseWorkloadPolicy(policyText), conditions).admitContainer(request)
    return undefined
  } catch (error) {
    if (error instanceof DeniedError) return { field: error.field, allowed: error.allowed, asked: error.asked }
    throw error
  }
}

/** Says what it changed; undefined where widening is not the answer. */
function widen(document: Document, { field }: Denial, request: ContainerRequest): string | undefined {
  const [root, name = '', member = '', ...rest] = field.split('.')
  const containers = document.toJS() as { containers: { name: string; [key: string]: unknown }[] }
  const index = containers.containers.findIndex((container) => container.name === name)
  const container = containers.containers[index]
  if (root !== 'containers' || container === undefined) return undefined
  const set = (path: readonly (string | number)[], value: unknown): string => {
    const full = ['containers', index, ...path]
    const before = document.getIn(full)
    const shown = before === undefined ? 'nothing' : JSON.stringify(isMap(before) ? before.toJSON() : jsonOf(before))
    document.setIn(full, document.createNode(value, { flow: true }))
    return `containers.${name}.${path.join('.')}: ${shown} → ${JSON.stringify(value)}`
  }
  switch (member) {
    case 'args':
      return request.args === undefined ? undefined : set(['args'], request.args)
    case 'env':
      return widenEnv(container.env, rest.join('.'), request, set)
    case 'user':
      return set(['user'], request.user)
    case 'workingDir':
      return set(['workingDir'], request.workingDir)
    case 'terminal':
    case 'stdin':
      return set([member], true)
    case 'groups':
      return set(['groups'], [...new Set([...listOf(container.groups), ...(request.groups ?? [])])])
    case 'mounts':
      // Another volume, or more room in a volume of the pod, is another decision than a wider mount.
      if (rest[0] === 'volume' || listOf(container.mounts).some((mount) => isVolumeMount(mount))) return undefined
      return set(['mounts'], widenMounts(listOf(container.mounts), request))
    case 'resources':
      return widenResource(rest[0] ?? '', container.resources, request, set)
    default:
      return undefined
  }
}

type Set = (path: readonly (string | number)[], value: unknown) => string

function widenEnv(env: unknown, name: string, request: ContainerRequest, set: Set): string | undefined {
  const values = request.env
    .filter((entry) => entry.startsWith(`${name}=`))
    .map((entry) => entry.slice(name.length + 1))
  const [value] = values
  if (value === undefined || values.length > 1) return undefined
  const known: unknown =
    typeof env === 'object' && env !== null ? Object.getOwnPropertyDescriptor(env, name)?.value : undefined
  if (known === undefined) return set(['env', name], value)
  if (typeof known === 'string') return set(['env', name], [known, value])
  // A wildcard or a form was a decision; one more value beside it cannot be written, and a secret is never the host's.
  return Array.isArray(known) ? set(['env', name], [...known, value]) : undefined
}

interface WrittenMount {
  /** Or `volume`, of which the request's kind says nothing new. */
  readonly kind?: string
  readonly volume?: string
  readonly path: string
  readonly readOnly?: boolean
  readonly maxBytes?: number
  readonly required?: boolean
}

function widenMounts(mounts: readonly unknown[], request: ContainerRequest): readonly WrittenMount[] {
  const written = mounts as readonly WrittenMount[]
  const wider = written.map((mount): WrittenMount => {
    const asked = request.mounts.find((wanted) => isOf(mount, wanted))
    if (asked === undefined) return mount
    const { readOnly, maxBytes, ...rest } = mount
    return {
      ...rest,
      ...(readOnly === undefined ? {} : { readOnly: readOnly && asked.readOnly }),
      ...(maxBytes === undefined ? {} : { maxBytes: Math.max(maxBytes, asked.sizeLimitBytes) }),
    }
  })
  const added = request.mounts
    .filter((wanted) => !written.some((mount) => isOf(mount, wanted)))
    .map(({ kind, destination, readOnly, sizeLimitBytes }) => ({
      kind,
      path: destination,
      ...(readOnly ? { readOnly } : {}),
      ...(sizeLimitBytes > 0 ? { maxBytes: sizeLimitBytes } : {}),
      required: false,
    }))
  return [...wider, ...added]
}

function isVolumeMount(mount: unknown): boolean {
  return typeof mount === 'object' && mount !== null && Object.hasOwn(mount, 'volume')
}

function isOf(mount: WrittenMount, wanted: ContainerRequest['mounts'][number]): boolean {
  return mount.path === wanted.destination && (mount.volume !== undefined || mount.kind === wanted.kind)
}

function widenResource(name: string, resources: unknown, request: ContainerRequest, set: Set): string | undefined {
  const { memoryBytes, cpuQuotaUs, cpuPeriodUs, pids } = request.resources
  const milli = Math.ceil((cpuQuotaUs * 1000) / (cpuPeriodUs || 100_000))
  const asked = { memory: memoryBytes, cpu: milli, pids }[name]
  const written: unknown = Object.getOwnPropertyDescriptor(resources ?? {}, name)?.value
  // "No limit" lies beyond every maximum: the bound itself would have to go, and that is for a person to decide.
  if (asked === undefined || asked === 0 || typeof written !== 'object' || written === null) return undefined
  const value = name === 'cpu' ? `${asked}m` : asked
  const bound = Object.hasOwn(written, 'max') && exceeds(written, asked, name) ? 'max' : 'min'
  return set(['resources', name, bound], value)
}

function exceeds(range: object, asked: number, name: string): boolean {
  const max = String(Object.getOwnPropertyDescriptor(range, 'max')?.value)
  const limit = name === 'cpu' ? milliCpusOf(max) : bytesOf(max)
  return limit !== undefined && asked > limit
}

function listOf(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : []
}

function jsonOf(node: unknown): unknown {
  return typeof node === 'object' && node !== null && 'toJSON' in node && typeof node.toJSON === 'function'
    ? node.toJSON()
    : node
}
