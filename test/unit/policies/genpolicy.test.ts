/** The scenarios of Kata's genpolicy, judged by policies that ours generates from the same YAML; docs/genpolicy.md is the table. */
import { globSync, readFileSync } from 'node:fs'
import { dirname, relative } from 'node:path'
import test from 'ava'
import { PolicyEngine } from '#policies/engine'
import { parseKubernetesFiles } from '#policies/generate/kubernetes-objects'
import { generatePolicy } from '#policies/generate/pod'
import type { ContainerRequest, ExecRequest } from '#policies/requests'
import { parseWorkloadPolicy } from '#policies/workload'
import { DeniedError } from '#protocol/errors'

const ROOT = 'test/vectors/rego/genpolicy/tests/policy/testdata'
/** What the images of the scenarios set themselves. */
const IMAGE_ENV = ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', 'REDIS_PORT=6379']
const IMAGE_DIRECTORIES = ['/', '/redis', '/data']

interface Case {
  readonly description: string
  readonly allowed: boolean
  readonly kind: string
  readonly request: Readonly<Record<string, unknown>>
}

interface Oci {
  readonly Process: OciProcess
  readonly Annotations?: Readonly<Record<string, string>>
}
interface OciProcess {
  readonly Args: readonly string[]
  readonly Env: readonly string[]
  readonly Cwd: string
  readonly Terminal: boolean
  readonly User?: { readonly UID: number; readonly GID: number } | null
}

/** Requests that the host cannot even make of a Caisson guest: the guest decides about these things alone. */
const NO_SUCH_REQUEST: Readonly<Record<string, string>> = {
  AddARPNeighborsRequest: 'the guest takes no neighbours from the host',
  UpdateInterfaceRequest: 'interfaces come once, by MAC address; names and flags are the guest’s',
  CreateSandboxRequest: 'a sandbox has no hooks, kernel modules or shared process namespaces to ask for',
}

/** Why our verdict differs: what they compare is no word of our requests, and so has no effect. */
const DIFFERENCES: Readonly<Record<string, string>> = {
  'createcontainer/cgroup_mount_extras': 'mount options of /sys are the guest’s own, whatever the host writes',
  'createcontainer/generate_name': 'names of pods are no part of what runs; a policy is bound to its guest by initdata',
  'createcontainer/gpu_vfio_cdi': 'devices cannot be asked for: none reaches a container',
  'createcontainer/network_namespace': 'all containers of a guest share its one network namespace',
  'createcontainer/security_context/runas': 'these are users of the pause container, which a guest does not run',
  'createcontainer/sysctls': 'the guest makes the settings of the policy; those of a container are not asked for',
  'state/execprocess':
    'capabilities, labels, groups and the like of an exec are the container’s own, whatever the host writes',
}

/** As a shim normalises a request: what the image says itself, and what the guest sets itself, is not asked for. */
function containerRequest(id: string, oci: Oci, image: string): ContainerRequest {
  const { Args, Env, Cwd, Terminal, User } = oci.Process
  return {
    containerId: id,
    name: oci.Annotations?.['io.kubernetes.cri.container-name'] ?? '',
    image,
    args: Args.length === 0 ? undefined : Args,
    env: added(Env),
    user: User === null || User === undefined ? '' : `${User.UID}:${User.GID}`,
    workingDir: Cwd === undefined || IMAGE_DIRECTORIES.includes(Cwd) ? '' : Cwd,
    mounts: [],
    terminal: Terminal,
    stdin: false,
    sharesProcesses: false,
    resources: { memoryBytes: 0, cpuQuotaUs: 0, cpuPeriodUs: 0, pids: 0 },
  }
}

function execRequest(request: Case['request'], user: string): ExecRequest {
  const { Args, Env, Cwd, Terminal, User } = request.process as OciProcess
  const asked = User === null || User === undefined ? '' : `${User.UID}:${User.GID}`
  return {
    containerId: String(request.container_id),
    args: Args,
    env: added(Env).filter((entry) => !entry.startsWith('CONTAINER_NAME=')),
    user: asked === user ? '' : asked,
    workingDir: IMAGE_DIRECTORIES.includes(Cwd) ? '' : Cwd,
    terminal: Terminal,
    stdin: false,
  }
}

function added(env: readonly string[] = []): string[] {
  return env.filter((entry) => !IMAGE_ENV.includes(entry) && !entry.startsWith('HOSTNAME='))
}

/** "admitted", "denied: <field>", or why there is no such request. */
function verdicts(folder: string): string[] {
  const cases: readonly Case[] = JSON.parse(readFileSync(`${folder}/testcases.json`, 'utf8'))
  const objects = parseKubernetesFiles([{ name: 'pod.yaml', text: readFileSync(`${folder}/pod.yaml`, 'utf8') }])
  const [pod] = objects.templates
  if (pod === undefined) throw new Error(`${folder} has no pod`)
  const pinned = (image: string) => `${image.replace(/[:@][^/]*$/, '')}@sha256:${'a'.repeat(64)}`
  const { yaml } = generatePolicy(pod, objects, {
    image: (reference) => ({ pinned: pinned(reference), entrypoint: [] }),
    logs: false,
  })
  const policy = parseWorkloadPolicy(yaml)
  const engine = new PolicyEngine(policy)
  let count = 0
  return cases.map(({ kind, request }) => {
    const reason = NO_SUCH_REQUEST[kind]
    if (reason !== undefined) return 'no such request'
    try {
      if (kind === 'RemoveContainerRequest') engine.release(String(request.container_id))
      else if (kind === 'ExecProcessRequest') {
        engine.admitExec(execRequest(request, policy.containers[0]?.user ?? ''))
      } else
        admitContainer(engine, policy, request, {
          fallbackId: `generated ${++count}`,
          stateful: folder.includes('/state/'),
        })
      return 'admitted'
    } catch (error) {
      if (error instanceof DeniedError) return `denied: ${error.field}`
      throw error
    }
  })
}

/** Cases without state each begin anew: their containers would otherwise be too many. */
function admitContainer(
  engine: PolicyEngine,
  policy: ReturnType<typeof parseWorkloadPolicy>,
  request: Case['request'],
  options: { readonly fallbackId: string; readonly stateful: boolean },
): void {
  const { fallbackId, stateful } = options
  const oci = request.OCI as Oci
  const type = oci.Annotations?.['io.kubernetes.cri.container-type'] ?? 'container'
  // The pause container is no workload: the guest runs none.
  if (type === 'sandbox') return
  const name = oci.Annotations?.['io.kubernetes.cri.container-name'] ?? ''
  const rule = policy.containers.find((container) => container.name === name) ?? policy.containers[0]
  const id = typeof request.container_id === 'string' && request.container_id !== '' ? request.container_id : fallbackId
  if (oci.Process === undefined || oci.Process === null) return
  const normalised = containerRequest(id, oci, rule?.repository ?? '')
  // Where the policy leaves the command to the image, the shim does not repeat it.
  const asked = rule?.args.kind === 'from-image' ? { ...normalised, args: undefined } : normalised
  const judge = stateful ? engine : new PolicyEngine(policy)
  judge.admitContainer(asked)
}

function table(): string {
  const rows: string[] = []
  for (const file of globSync(`${ROOT}/**/testcases.json`).sort()) {
    const folder = relative(ROOT, dirname(file))
    const cases: readonly Case[] = JSON.parse(readFileSync(file, 'utf8'))
    verdicts(dirname(file)).forEach((ours, index) => {
      const { description = '', allowed = false, kind = '' } = cases[index] ?? {}
      const same = ours === 'admitted' ? allowed : ours.startsWith('denied') && !allowed
      const why = same ? '' : (NO_SUCH_REQUEST[kind] ?? DIFFERENCES[folder] ?? 'UNEXPLAINED')
      rows.push(`| ${folder} | ${description} | ${allowed ? 'allow' : 'deny'} | ${ours} | ${why} |`)
    })
  }
  return rows.join('\n')
}

test('each scenario of genpolicy has our verdict beside theirs, and a reason wherever they differ', (t) => {
  const document = readFileSync('docs/genpolicy.md', 'utf8')
  const rows = document.split('\n').filter((line) => line.startsWith('| ') && !/^\| (scenario|---)/.test(line))
  t.is(rows.length, 61)
  t.is(rows.join('\n'), table())
  t.false(document.includes('UNEXPLAINED'))
})
