/** One container of a pod as a rule of the policy. */
import { DEFAULT_CAPABILITIES } from '../container-rule.ts'
import { type KeySigner, splitReference } from '../image-rule.ts'
import { compact, type Draft, type DraftMap, OpenChoice, type Refusal, Remarked } from './draft.ts'
import { environmentOf } from './environment.ts'
import {
  type KubeObject,
  type KubernetesObjects,
  listOf,
  objectOf,
  objectsOf,
  type PodTemplate,
  text,
  textsOf,
} from './kubernetes-objects.ts'
import { type SeccompProfiles, seccompOf } from './seccomp.ts'
import { devicesOf, groupOf, type PodVolumesContext, volumesOf } from './volumes.ts'

/** What the registry says of an image. */
export interface ImageFacts {
  /** host/path@sha256:… */
  readonly pinned: string
  readonly entrypoint: readonly string[]
}

export interface ContainerContext {
  readonly pod: PodTemplate
  readonly objects: KubernetesObjects
  /** Undefined where the registry was not asked. */
  readonly image: ImageFacts | undefined
  /** Containers that must be there first. */
  readonly requires: readonly string[]
  /** Runs to its end before the others. */
  readonly init: boolean
  readonly volumes: PodVolumesContext
  /** Let the host read the output. */
  readonly logs: boolean
  /** The key that signs images which the YAML names without a digest; undefined: they are pinned. */
  readonly signedBy: KeySigner | undefined
  readonly profiles: SeccompProfiles
}

export interface ContainerDraft {
  readonly rule: DraftMap
  readonly refusals: readonly Refusal[]
}

export function draftContainer(container: KubeObject, context: ContainerContext): ContainerDraft {
  const name = text(container.name) ?? ''
  const security = objectOf(container.securityContext) ?? {}
  const podSecurity = objectOf(context.pod.spec.securityContext) ?? {}
  const environment = environmentOf(container, context.pod, context.objects)
  const volumes = volumesOf(container, context.volumes)
  const rule = compact({
    name,
    ...imageOf(container, context),
    role: context.init ? 'init' : undefined,
    requires: context.requires,
    args: argsOf(container, context.image, environment.expand),
    env: Object.fromEntries(environment.rules),
    serviceEnv: true,
    user: userOf(security, podSecurity),
    groups: groupsOf(context.pod.spec),
    workingDir: text(container.workingDir),
    mounts: volumes.mounts,
    devices: devicesOf(container, context.volumes),
    readOnlyRoot: security.readOnlyRootFilesystem === true ? true : undefined,
    capabilities: capabilitiesOf(security),
    seccomp: seccompOf(security, podSecurity, context.profiles),
    terminal: container.tty === true ? true : undefined,
    stdin: container.stdin === true ? true : undefined,
    resources: resourcesOf(container),
    ports: [...new Set(objectsOf(container.ports).flatMap(portOf))],
    exec: execsOf(container, environment.expand),
    terminationMessage: lastWordsOf(container, context),
    logs: context.logs ? new Remarked('allow', 'the host reads all output of this container') : undefined,
  })
  // An empty list of capabilities means none, where no list means the default.
  const drops = capabilitiesOf(security)
  return {
    rule: drops !== undefined && drops.length === 0 ? { ...rule, capabilities: [] } : rule,
    refusals: [...volumes.refusals, ...securityRefusals(name, security)],
  }
}

function imageOf(container: KubeObject, { image, signedBy }: ContainerContext): DraftMap {
  const pinned = pinnedReference(container)
  if (signedBy === undefined || pinned !== undefined) return { image: image?.pinned ?? pinned ?? openImage(container) }
  const written = text(container.image) ?? ''
  const repository = image?.pinned.split('@')[0] ?? repositoryOf(written)
  const key = signedBy.kind === 'key' ? { key: signedBy.resource } : { keyData: signedBy.pem }
  return { image: repository ?? new OpenChoice(`repository of ${written}, with its registry`), signedBy: [key] }
}

/** Undefined where the text does not say the registry. */
function repositoryOf(image: string): string | undefined {
  const { repository } = splitReference(image)
  return repository.includes('/') && /^[^/]*[.:]/.test(repository) ? repository : undefined
}

function pinnedReference(container: KubeObject): string | undefined {
  const image = text(container.image) ?? ''
  return /@sha256:[0-9a-f]{64}$/.test(image) && image.includes('/') && /^[^/]*[.:]/.test(image) ? image : undefined
}

function openImage(container: KubeObject): OpenChoice {
  return new OpenChoice(
    `repository and digest of ${text(container.image) ?? 'the image'}: \`caisson image inspect\` prints them`,
  )
}

/** Kubernetes' `command` replaces the entrypoint, `args` the command. */
function argsOf(
  container: KubeObject,
  image: ImageFacts | undefined,
  expand: (word: string) => Draft,
): Draft | undefined {
  const [command, args] = [textsOf(container.command), textsOf(container.args)]
  if (command === undefined && args === undefined) return undefined
  if (command !== undefined) return [...command, ...(args ?? [])].map(expand)
  if (image === undefined) return new OpenChoice(`the image's entrypoint, followed by ${JSON.stringify(args)}`)
  return [...image.entrypoint, ...(args ?? []).map(expand)]
}

function userOf(security: KubeObject, podSecurity: KubeObject): string | undefined {
  const user = text(security.runAsUser) ?? text(podSecurity.runAsUser)
  const group = text(security.runAsGroup) ?? text(podSecurity.runAsGroup)
  if (user === undefined) return undefined
  return group === undefined ? user : `${user}:${group}`
}

/** fsGroup and supplementalGroups. */
function groupsOf(spec: KubeObject): readonly number[] {
  const supplemental = listOf(objectOf(spec.securityContext)?.supplementalGroups)
  const given = [groupOf(spec), ...supplemental].filter((group) => typeof group === 'number')
  return [...new Set(given)].filter((group) => Number.isInteger(group) && group >= 0 && group < 0xffffffff)
}

/** Undefined: the default. */
function capabilitiesOf(security: KubeObject): readonly string[] | undefined {
  const capabilities = objectOf(security.capabilities)
  if (capabilities === undefined) return undefined
  const names = (value: unknown): string[] =>
    (textsOf(value) ?? []).map((name) => name.toUpperCase().replace(/^CAP_/, ''))
  const [add, drop] = [names(capabilities.add), names(capabilities.drop)]
  const base = drop.includes('ALL') ? [] : DEFAULT_CAPABILITIES.filter((name) => !drop.includes(name))
  return [...new Set([...base, ...add])].sort()
}

function securityRefusals(name: string, security: KubeObject): Refusal[] {
  if (security.privileged !== true) return []
  return [
    {
      path: `containers.${name}.securityContext.privileged`,
      reason: 'a privileged container could change the guest that was attested',
      remedy: 'Name the capabilities that it needs.',
    },
  ]
}

/** Only an upper bound: the host may set less, since it can stop the pod anyway; more, or no limit at all, is denied. */
function resourcesOf(container: KubeObject): DraftMap {
  const limits = objectOf(objectOf(container.resources)?.limits) ?? {}
  const [memory, cpu] = [text(limits.memory), text(limits.cpu)]
  return compact({
    memory: memory === undefined ? undefined : { max: memory },
    cpu: cpu === undefined ? undefined : { max: cpu },
  })
}

function portOf(port: KubeObject): number[] {
  const number = Number(port.containerPort)
  return (text(port.protocol) ?? 'TCP') === 'TCP' && Number.isInteger(number) ? [number] : []
}

/** Kubernetes reads a file of every container when it ends; the host is let to read it where the YAML names the file. */
function lastWordsOf(container: KubeObject, { logs }: ContainerContext): Remarked | undefined {
  const path = text(container.terminationMessagePath)
  return logs && path !== undefined ? new Remarked(path, 'the host reads the end of it') : undefined
}

/** Probes and hooks that run a command in the container; others need no permission. */
function execsOf(container: KubeObject, expand: (word: string) => Draft): Draft[] {
  const lifecycle = objectOf(container.lifecycle) ?? {}
  const handlers = [
    container.startupProbe,
    container.livenessProbe,
    container.readinessProbe,
    lifecycle.postStart,
    lifecycle.preStop,
  ]
  const commands = handlers.flatMap((handler) => {
    const command = textsOf(objectOf(objectOf(handler)?.exec)?.command)
    return command === undefined ? [] : [command]
  })
  const unique = [...new Map(commands.map((command) => [JSON.stringify(command), command])).values()]
  return unique.map((command) => command.map(expand))
}
