/**
 * A pod template as a workload policy: containers in the order that Kubernetes keeps, each with what the YAML states and
 * nothing else. Deterministic: equal files and images give equal text.
 */
import type { VolumeFile } from '#protocol/volume-content'
import type { KeySigner } from '../image-rule.ts'
import { IPC_SYSCTLS, NETWORK_SYSCTLS } from '../pod-rule.ts'
import { draftContainer, type ImageFacts } from './container.ts'
import { compact, type DraftMap, type Refusal } from './draft.ts'
import {
  type KubeObject,
  type KubernetesObjects,
  objectOf,
  objectsOf,
  type PodTemplate,
  text,
  textsOf,
} from './kubernetes-objects.ts'
import { type RenderedPolicy, renderPolicy } from './render.ts'
import type { SeccompProfiles } from './seccomp.ts'
import { type PodVolumesContext, podVolumes } from './volumes.ts'

export interface GeneratedPolicy extends RenderedPolicy {
  readonly owner: string
  readonly name: string
  /** What the pod asks for and no confidential guest gives; the policy leaves it out. */
  readonly refusals: readonly Refusal[]
  /** Worth knowing, nothing to decide. */
  readonly notes: readonly string[]
}

export interface GenerateOptions {
  /** Asked once for each image; undefined where the registry is not to be asked. */
  readonly image: (reference: string) => ImageFacts | undefined
  readonly logs: boolean
  /** The key that signs images which the YAML names without a digest. Default: they are pinned. */
  readonly signedBy?: KeySigner
  /** Profiles of the node that the YAML names. Default: none, and their system calls stay choices. */
  readonly seccompProfiles?: SeccompProfiles
  /** `volumeDigest`, for what ConfigMaps hold; without it their digests stay choices. */
  readonly digest?: (files: readonly VolumeFile[]) => string
}

/** References of all images of a pod, each once. */
export function imagesOf(pod: PodTemplate): readonly string[] {
  return [...new Set(containersOf(pod).flatMap(({ container }) => text(container.image) ?? []))]
}

export function generatePolicy(
  pod: PodTemplate,
  objects: KubernetesObjects,
  options: GenerateOptions,
): GeneratedPolicy {
  const rules: DraftMap[] = []
  const refusals: Refusal[] = [...podRefusals(pod.spec)]
  const first: string[] = []
  const volumes: PodVolumesContext = { spec: pod.spec, objects, digest: options.digest }
  for (const { container, stage } of containersOf(pod)) {
    const draft = draftContainer(container, {
      pod,
      objects,
      image: options.image(text(container.image) ?? ''),
      requires: [...first],
      init: stage === 'init',
      volumes,
      logs: options.logs,
      signedBy: options.signedBy,
      profiles: options.seccompProfiles ?? (() => undefined),
    })
    rules.push(draft.rule)
    refusals.push(...draft.refusals)
    if (stage !== 'main') first.push(text(container.name) ?? '')
  }
  const declared = podVolumes(
    volumes,
    containersOf(pod).map(({ container }) => container),
  )
  const rendered = renderPolicy(
    {
      apiVersion: 'caisson/v1',
      kind: 'WorkloadPolicy',
      ...podRule(pod.spec),
      ...(declared.length === 0 ? {} : { volumes: declared }),
      containers: rules,
    },
    `What may run in the guests of ${pod.owner}, and what may leave them. Whatever is absent is denied.`,
  )
  return { ...rendered, owner: pod.owner, name: pod.name, refusals, notes: notesOf(pod.spec) }
}

/** What the policy says of the pod as a whole, where the YAML does. */
function podRule(spec: KubeObject): DraftMap {
  const sysctls = sysctlsOf(spec).filter(([name]) => isOffered(name))
  const hostAliases = objectsOf(spec.hostAliases).flatMap(({ ip, hostnames }) => {
    const address = text(ip)
    return address === undefined ? [] : [{ address, names: [...(textsOf(hostnames) ?? [])] }]
  })
  return compact({
    shareProcessNamespace: spec.shareProcessNamespace === true ? true : undefined,
    sysctls: sysctls.length === 0 ? undefined : Object.fromEntries(sysctls),
    hostAliases: hostAliases.length === 0 ? undefined : hostAliases,
  })
}

function sysctlsOf(spec: KubeObject): readonly (readonly [name: string, value: string])[] {
  return objectsOf(objectOf(spec.securityContext)?.sysctls).flatMap(({ name, value }) => {
    const setting = text(name)
    return setting === undefined ? [] : [[setting, text(value) ?? ''] as const]
  })
}

function isOffered(sysctl: string): boolean {
  return NETWORK_SYSCTLS.includes(sysctl) || IPC_SYSCTLS.includes(sysctl)
}

interface StagedContainer {
  readonly container: KubeObject
  /** `sidecar`: an init container that keeps running. */
  readonly stage: 'init' | 'sidecar' | 'main'
}

function containersOf(pod: PodTemplate): StagedContainer[] {
  const init = objectsOf(pod.spec.initContainers).map((container) => ({
    container,
    stage: container.restartPolicy === 'Always' ? ('sidecar' as const) : ('init' as const),
  }))
  return [...init, ...objectsOf(pod.spec.containers).map((container) => ({ container, stage: 'main' as const }))]
}

const POD_REFUSALS: Readonly<Record<string, readonly [string, string]>> = {
  hostNetwork: ['the guest has a network of its own', 'Remove it; publish ports by a Service.'],
  hostPID: ['the guest has no processes of the host', 'Remove it.'],
  hostIPC: ['the guest shares no memory with the host', 'Remove it.'],
}

function podRefusals(spec: KubeObject): Refusal[] {
  const refused = sysctlsOf(spec).filter(([name]) => !isOffered(name))
  return [
    ...Object.entries(POD_REFUSALS).flatMap(([path, [reason, remedy]]) =>
      spec[path] === true ? [{ path, reason, remedy }] : [],
    ),
    ...refused.map(([name]) => ({
      path: `securityContext.sysctls.${name}`,
      reason: 'the guest offers settings of the pod’s own network and IPC only',
      remedy: 'Remove it; docs/policy.md lists those that are offered.',
    })),
  ]
}

function notesOf(spec: KubeObject): string[] {
  const notes: string[] = []
  if (spec.automountServiceAccountToken !== false) {
    notes.push(
      'The pod does not say `automountServiceAccountToken: false`: Kubernetes adds a volume with a token, which comes from the host and is denied. A pod that needs it declares { name: kube-api-access, kind: projected, mutable: true } and mounts it on /var/run/secrets/kubernetes.io/serviceaccount.',
    )
  }
  if (spec.runtimeClassName !== 'caisson') {
    notes.push('The pod does not say `runtimeClassName: caisson`: without it, it runs outside of any guest.')
  }
  return notes
}
