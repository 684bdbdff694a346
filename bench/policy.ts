/**
 * The policy: how long a request is judged (warm), what an engine keeps in memory, and how long the policies of 50 YAML
 * files take to generate. Figures are of the processor of this machine; a request has 50 µs.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { cpuUsage, memoryUsage } from 'node:process'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { loadConditions } from '#policies/container-conditions'
import { PolicyEngine } from '#policies/engine'
import { parseKubernetesFiles } from '#policies/generate/kubernetes-objects'
import { generatePolicy } from '#policies/generate/pod'
import type { ContainerRequest } from '#policies/requests'
import { parseWorkloadPolicy } from '#policies/workload'
import { DeniedError } from '#protocol/errors'
import { median } from './statistics.ts'

const VECTORS = new URL('../test/vectors/rego/genpolicy/tests/generate/testdata/', import.meta.url)
const REQUESTS = 2_000
const ENGINES = 500
const FILES = 50
const DIGEST = `sha256:${'ab'.repeat(32)}`

export interface PolicyFigures {
  readonly rounds: number
  /** Microseconds for one request, median over the rounds. */
  readonly admittedUs: number
  readonly deniedUs: number
  /** With three conditions in CEL. */
  readonly conditionsUs: number
  readonly execUs: number
  readonly apiUs: number
  /** KiB of heap for an engine with its policy, parsed. */
  readonly engineKib: number
  readonly parseMs: number
  /** Milliseconds for the policies of 50 YAML files. */
  readonly generateMs: number
}

const ENV = Array.from(
  { length: 24 },
  (_, index) => `      VARIABLE_${index}: { glob: "https://*.shop.test/${index}/*" }`,
)
const CONDITIONS = `
    conditions:
      - { name: mode, require: 'request.env.MODE in ["debug", "production"]' }
      - { name: user, require: 'request.user == "33" && !request.terminal' }
      - { name: mounts, require: 'request.mounts.all(m, m.kind == "scratch" && m.maxBytes < 65536)' }`

function policyText(conditions: string): string {
  return `apiVersion: caisson/v1
kind: WorkloadPolicy
containers:
  - name: web
    image: registry.test/web@${DIGEST}
    args: [serve, --port, "8443"]
    user: "33"
    env:
      MODE: [debug, production]
      POD_IP: { format: ip }
${ENV.join('\n')}
    mounts: [{ kind: scratch, path: /data, maxBytes: 65536 }, { kind: tmpfs, path: /tmp, required: false }]
    exec: [[check, --deep], [reload]]
    api: { resources: [default/keys/one, default/keys/two], token: true }
    resources: { memory: { max: 512Mi }, cpu: { max: "2" }, pids: { max: 256 } }
    max: 1024${conditions}
  - { name: side, image: "registry.test/side@${DIGEST}" }
`
}

const REQUEST: ContainerRequest = {
  containerId: 'c',
  name: 'web',
  image: 'registry.test/web:1',
  args: ['serve', '--port', '8443'],
  env: [
    'MODE=production',
    'POD_IP=10.1.2.3',
    ...ENV.map((_, index) => `VARIABLE_${index}=https://eu.shop.test/${index}/a/b`),
  ],
  user: '',
  workingDir: '',
  mounts: [{ kind: 'scratch', destination: '/data', readOnly: false, sizeLimitBytes: 4096 }],
  terminal: false,
  stdin: false,
  sharesProcesses: false,
  resources: { memoryBytes: 2 ** 28, cpuQuotaUs: 100_000, cpuPeriodUs: 100_000, pids: 64 },
}

export async function benchPolicy(rounds: number, say: (line: string) => void): Promise<PolicyFigures> {
  const [plain, conditional] = [parseWorkloadPolicy(policyText('')), parseWorkloadPolicy(policyText(CONDITIONS))]
  const conditions = await loadConditions(conditional)
  const engine = new PolicyEngine(plain)
  const judging = new PolicyEngine(conditional, conditions)
  const admit = (by: PolicyEngine) => () => {
    by.admitContainer(REQUEST)
    by.release(REQUEST.containerId)
  }
  const running = new PolicyEngine(plain)
  running.admitContainer(REQUEST)
  const wrong = { ...REQUEST, resources: { ...REQUEST.resources, pids: 257 } }
  const exec = { containerId: 'c', args: ['reload'], env: [], user: '', workingDir: '', terminal: false, stdin: false }
  const files = kubernetesFiles()
  say(`policy: ${rounds} rounds of ${REQUESTS} requests`)
  return {
    rounds,
    admittedUs: perRequest(rounds, admit(engine)),
    deniedUs: perRequest(rounds, () => denied(() => engine.admitContainer(wrong))),
    conditionsUs: perRequest(rounds, admit(judging)),
    execUs: perRequest(rounds, () => running.admitExec(exec)),
    apiUs: perRequest(rounds, () => running.admitApi('c', { kind: 'resource', resource: 'default/keys/two' })),
    engineKib: engineKib(),
    parseMs: timed(rounds, () => void parseWorkloadPolicy(policyText(CONDITIONS))),
    generateMs: timed(rounds, () => generateAll(files)),
  }
}

export function printPolicy(figures: PolicyFigures): void {
  const us = (value: number): string => `${value.toFixed(1)} µs`
  console.log(
    `policy, a request of 26 variables (median of ${figures.rounds}): admitted ${us(figures.admittedUs)}, denied ${us(figures.deniedUs)}, with three conditions ${us(figures.conditionsUs)} (target at most 50 µs)`,
  )
  console.log(`  exec ${us(figures.execUs)}, call of the endpoint ${us(figures.apiUs)}`)
  console.log(
    `  a policy is read in ${figures.parseMs.toFixed(2)} ms and takes ${figures.engineKib.toFixed(1)} KiB; ${FILES} YAML files give their policies in ${figures.generateMs.toFixed(0)} ms`,
  )
}

/** Warm: the first round is not counted. Microseconds of the processor, for waiting there is none. */
function perRequest(rounds: number, work: () => void): number {
  const turn = (): number => {
    const before = cpuUsage()
    for (let index = 0; index < REQUESTS; index++) work()
    const { user, system } = cpuUsage(before)
    return (user + system) / REQUESTS
  }
  turn()
  return median(Array.from({ length: rounds }, turn))
}

function timed(rounds: number, work: () => void): number {
  work()
  return median(
    Array.from({ length: rounds }, () => {
      const before = cpuUsage()
      work()
      const { user, system } = cpuUsage(before)
      return (user + system) / 1000
    }),
  )
}

function denied(work: () => unknown): void {
  try {
    work()
  } catch (error) {
    if (error instanceof DeniedError) return
    throw error
  }
  throw new Error('the request was admitted')
}

/** Many, all kept: what one adds to a heap without garbage. */
function engineKib(): number {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  collect()
  const before = memoryUsage().heapUsed
  const engines = Array.from({ length: ENGINES }, () => new PolicyEngine(parseWorkloadPolicy(policyText(''))))
  collect()
  return (memoryUsage().heapUsed - before) / 1024 / engines.length
}

/** The files of genpolicy's tests, again and again until there are 50. */
function kubernetesFiles(): readonly { readonly name: string; readonly text: string }[] {
  const names = readdirSync(VECTORS).filter((name) => name.endsWith('.yaml'))
  return Array.from({ length: FILES }, (_, index) => {
    const name = names[index % names.length] ?? ''
    return { name, text: readFileSync(new URL(name, VECTORS), 'utf8') }
  })
}

/** Registries are not asked: what they know is given. */
function generateAll(files: ReturnType<typeof kubernetesFiles>): void {
  const image = (reference: string) => ({
    pinned: `${reference.replace(/:[^/]*$/, '')}@${DIGEST}`,
    entrypoint: ['/entry'],
  })
  for (const file of files) {
    const objects = parseKubernetesFiles([file])
    for (const pod of objects.templates) generatePolicy(pod, objects, { image, logs: false })
  }
}
