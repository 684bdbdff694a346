/**
 * Scenarios: requests in order, each with the verdict that a policy's owner expects. They share one engine, so that
 * order, cardinality and what was there before count, as in a guest.
 */
import { DeniedError } from '#protocol/errors'
import type { ContainerConditions } from './container-conditions.ts'
import { type PolicyNode, parsePolicyDocument } from './document.ts'
import { PolicyEngine } from './engine.ts'
import { bytesOf, milliCpusOf } from './quantity.ts'
import type { ContainerRequest, ExecRequest } from './requests.ts'
import type { WorkloadPolicy } from './workload.ts'

export interface ScenarioStep {
  readonly name: string
  readonly line: number
  /** Undefined: it must be admitted; else the field that the denial must name. */
  readonly denied: string | undefined
  readonly run: (engine: PolicyEngine) => void
  /** The request to create a container, for `policy explain`. */
  readonly request: ContainerRequest | undefined
}

export interface StepResult {
  readonly name: string
  readonly line: number
  readonly ok: boolean
  readonly expected: string
  readonly found: string
  /** Of the denial, when there was one. */
  readonly reason?: string
}

const PERIOD_US = 100_000
const ACTIONS = ['create', 'started', 'ended', 'removed', 'exec', 'logs', 'stdin', 'signal', 'port', 'api'] as const

/** Throws `MalformedError` ERR_POLICY_MALFORMED, naming path and line. */
export function parseScenario(text: string): readonly ScenarioStep[] {
  const root = parsePolicyDocument(text)
  const fields = root.fields(['apiVersion', 'kind', 'steps'])
  needed(fields, 'apiVersion', root).oneOf(['caisson/v1'])
  needed(fields, 'kind', root).oneOf(['PolicyTest'])
  return needed(fields, 'steps', root).items().map(readStep)
}

/** @param conditions of the policy (`loadConditions`) */
export function runScenario(
  policy: WorkloadPolicy,
  steps: readonly ScenarioStep[],
  conditions?: ContainerConditions,
): StepResult[] {
  const engine = new PolicyEngine(policy, conditions)
  return steps.map(({ name, line, denied, run }) => {
    const expected = denied === undefined ? 'admitted' : `denied: ${denied}`
    try {
      run(engine)
      return { name, line, expected, found: 'admitted', ok: denied === undefined }
    } catch (error) {
      if (!(error instanceof DeniedError)) throw error
      const found = `denied: ${error.field}`
      return { name, line, expected, found, ok: denied === error.field, reason: error.message }
    }
  })
}

function readStep(node: PolicyNode): ScenarioStep {
  const fields = node.fields(['name', 'denied', ...ACTIONS])
  const given = ACTIONS.filter((action) => fields.has(action))
  const [action] = given
  const value = action === undefined ? undefined : fields.get(action)
  if (action === undefined || value === undefined || given.length > 1) {
    throw node.fail('must have one action', `Actions: ${ACTIONS.join(', ')}.`)
  }
  const common = { line: node.line, denied: fields.get('denied')?.string() }
  const name = fields.get('name')?.string()
  if (action !== 'create')
    return { ...common, name: name ?? action, run: readAction(action, value), request: undefined }
  const request = readContainer(value)
  return {
    ...common,
    name: name ?? `create ${request.containerId}`,
    run: (engine) => void engine.admitContainer(request),
    request,
  }
}

function readAction(action: Exclude<(typeof ACTIONS)[number], 'create'>, value: PolicyNode): ScenarioStep['run'] {
  switch (action) {
    case 'exec': {
      const request = readExec(value)
      return (engine) => engine.admitExec(request)
    }
    case 'port': {
      const port = value.integer(1, 65535)
      return (engine) => engine.admitPort(port)
    }
    case 'signal': {
      const fields = value.fields(['container', 'signal'])
      const [id, signal] = [needed(fields, 'container', value).string(), needed(fields, 'signal', value).integer(1, 64)]
      return (engine) => engine.admitSignal(id, signal, 15)
    }
    case 'ended': {
      const fields = value.fields(['container', 'code'])
      const id = needed(fields, 'container', value).string()
      const code = fields.get('code')?.integer(0, 255) ?? 0
      return (engine) => engine.ended(id, code)
    }
    case 'api': {
      const fields = value.fields(['container', 'resource', 'call'])
      const [id, resource] = [needed(fields, 'container', value).string(), fields.get('resource')?.string()]
      const request =
        resource === undefined
          ? { kind: needed(fields, 'call', value).oneOf(['token', 'evidence', 'info']) }
          : { kind: 'resource' as const, resource }
      return (engine) => engine.admitApi(id, request)
    }
    case 'started':
      return withId(value, (engine, id) => engine.started(id))
    case 'removed':
      return withId(value, (engine, id) => engine.release(id))
    case 'logs':
      return withId(value, (engine, id) => engine.admitOutput(id, false))
    case 'stdin':
      return withId(value, (engine, id) => engine.admitStdin(id))
  }
}

function withId(value: PolicyNode, run: (engine: PolicyEngine, id: string) => void): ScenarioStep['run'] {
  const id = value.string()
  return (engine) => run(engine, id)
}

const CONTAINER_KEYS = [
  'id',
  'name',
  'image',
  'args',
  'env',
  'user',
  'workingDir',
  'mounts',
  'groups',
  'devices',
  'terminal',
  'stdin',
  'sharesProcesses',
  'resources',
]

function readContainer(node: PolicyNode): ContainerRequest {
  const fields = node.fields(CONTAINER_KEYS)
  const name = fields.get('name')?.string() ?? ''
  return {
    containerId: fields.get('id')?.string() ?? (name === '' ? 'container' : name),
    name,
    image: needed(fields, 'image', node).string(),
    args: fields
      .get('args')
      ?.items()
      .map((item) => item.string()),
    env: [...(fields.get('env')?.entries() ?? [])].map(([key, value]) => `${key}=${value.string()}`),
    user: fields.get('user')?.string() ?? '',
    workingDir: fields.get('workingDir')?.string() ?? '',
    mounts: (fields.get('mounts')?.items() ?? []).map(readMount),
    devices: (fields.get('devices')?.items() ?? []).map((item) => {
      const device = item.fields(['path', 'disk'])
      return { path: needed(device, 'path', item).string(), disk: device.get('disk')?.string() ?? 'block-0' }
    }),
    groups: (fields.get('groups')?.items() ?? []).map((item) => item.integer(0, 0xfffffffe)),
    terminal: fields.get('terminal')?.boolean() ?? false,
    stdin: fields.get('stdin')?.boolean() ?? false,
    sharesProcesses: fields.get('sharesProcesses')?.boolean() ?? false,
    resources: readResources(fields.get('resources')),
  }
}

function readMount(node: PolicyNode): ContainerRequest['mounts'][number] {
  const fields = node.fields(['kind', 'path', 'readOnly', 'sizeLimitBytes', 'volume'])
  return {
    kind: needed(fields, 'kind', node).string(),
    destination: needed(fields, 'path', node).string(),
    readOnly: fields.get('readOnly')?.boolean() ?? false,
    sizeLimitBytes: fields.get('sizeLimitBytes')?.integer(0, Number.MAX_SAFE_INTEGER) ?? 0,
    volume: fields.get('volume')?.string() ?? '',
  }
}

function readResources(node: PolicyNode | undefined): ContainerRequest['resources'] {
  const fields = node?.fields(['memory', 'cpu', 'pids'])
  const amount = (name: string, parse: (text: string) => number | undefined): number => {
    const field = fields?.get(name)
    if (field === undefined) return 0
    const value = parse(field.scalarText())
    if (value === undefined) throw field.fail('must be a quantity such as 512Mi or 500m')
    return value
  }
  return {
    memoryBytes: amount('memory', bytesOf),
    cpuQuotaUs: (amount('cpu', milliCpusOf) * PERIOD_US) / 1000,
    cpuPeriodUs: PERIOD_US,
    pids: fields?.get('pids')?.integer(0, 2 ** 31) ?? 0,
  }
}

function readExec(node: PolicyNode): ExecRequest {
  const fields = node.fields(['container', 'args', 'env', 'user', 'workingDir', 'terminal', 'stdin'])
  return {
    containerId: needed(fields, 'container', node).string(),
    args: needed(fields, 'args', node)
      .items()
      .map((item) => item.string()),
    env: [...(fields.get('env')?.entries() ?? [])].map(([key, value]) => `${key}=${value.string()}`),
    user: fields.get('user')?.string() ?? '',
    workingDir: fields.get('workingDir')?.string() ?? '',
    terminal: fields.get('terminal')?.boolean() ?? false,
    stdin: fields.get('stdin')?.boolean() ?? false,
  }
}

function needed(fields: ReadonlyMap<string, PolicyNode>, key: string, parent: PolicyNode): PolicyNode {
  const field = fields.get(key)
  if (field === undefined) throw parent.fail(`lacks the key ${key}`)
  return field
}
