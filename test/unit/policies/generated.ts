/** Policies generated from Kubernetes YAML, with a registry that knows one digest. */
import { parseKubernetesFiles } from '#policies/generate/kubernetes-objects'
import { type GeneratedPolicy, generatePolicy } from '#policies/generate/pod'
import { parseWorkloadPolicy } from '#policies/workload'
import { nodeCrypto } from '#protocol/node/crypto'
import { type VolumeFile, volumeDigest } from '#protocol/volume-content'

export const DIGEST: string = `sha256:${'a'.repeat(64)}`
export const image = (reference: string): { readonly pinned: string; readonly entrypoint: readonly string[] } => ({
  pinned: `${reference.replace(/:[^/]*$/, '')}@${DIGEST}`,
  entrypoint: ['/entry'],
})

export const digest = (files: readonly VolumeFile[]): string => volumeDigest(nodeCrypto, files)

export function generate(yaml: string, options: { logs?: boolean; offline?: boolean } = {}): GeneratedPolicy {
  const objects = parseKubernetesFiles([{ name: 'pod.yaml', text: yaml }])
  const [pod] = objects.templates
  if (pod === undefined) throw new Error('no pod in the YAML')
  return generatePolicy(pod, objects, {
    image: options.offline === true ? () => undefined : image,
    logs: options.logs ?? false,
  })
}

export function pod(container: object, spec: object = {}): string {
  const containers = [{ name: 'web', image: 'registry.test/web:1', ...container }]
  return JSON.stringify({ apiVersion: 'v1', kind: 'Pod', metadata: { name: 'p' }, spec: { containers, ...spec } })
}

/** The rule of the first container, as its policy reads. */
export function ruleOf(container: object, more = ''): ReturnType<typeof parseWorkloadPolicy>['containers'][number] {
  const { yaml } = generate(`${pod(container)}\n${more}`)
  const [rule] = parseWorkloadPolicy(yaml).containers
  if (rule === undefined) throw new Error('no container in the policy')
  return rule
}
