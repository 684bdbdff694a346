/**
 * The workload policy: what may run in a sandbox and what may leave it. Parsing only; `engine.ts` judges requests.
 *
 * Whatever is absent is denied: no environment beyond the image's, no mounts, no exec, no logs, no ports. The image is
 * pinned by manifest digest, so a policy names bytes, not a tag.
 */
import { bounded, type ContainerRule, readContainerRule, requiredField } from './container-rule.ts'
import { parsePolicyDocument } from './document.ts'
import { type NameServerRule, readNameServers } from './egress-rule.ts'
import { POD_KEYS, type PodRule, readPodRule } from './pod-rule.ts'
import { readVolumeRules, type VolumeRule } from './volume-rule.ts'

export interface WorkloadPolicy {
  /** Of the pod, by name. */
  readonly volumes: ReadonlyMap<string, VolumeRule>
  readonly containers: readonly ContainerRule[]
  readonly pod: PodRule
  /** Of the name servers that the host may name; undefined: any. */
  readonly dns: readonly NameServerRule[] | undefined
  /** containers-policy.json as data; absent: fetched from the verifier (initdata's `image_security_policy_uri`). */
  readonly imagePolicy: unknown
}

const MAX_CONTAINERS = 64

/** Throws `MalformedError` with the code `ERR_POLICY_MALFORMED`, naming path and line. */
export function parseWorkloadPolicy(text: string): WorkloadPolicy {
  const root = parsePolicyDocument(text)
  const fields = root.fields(['apiVersion', 'kind', 'volumes', 'containers', 'dns', 'imagePolicy', ...POD_KEYS])
  requiredField(fields, 'apiVersion', root).oneOf(['caisson/v1'])
  requiredField(fields, 'kind', root).oneOf(['WorkloadPolicy'])
  const list = requiredField(fields, 'containers', root)
  const items = bounded(list, MAX_CONTAINERS)
  if (items.length === 0) throw list.fail('is empty', 'A policy without containers admits nothing; name at least one.')
  const volumes = readVolumeRules(fields.get('volumes'))
  const containers = items.map((item) => readContainerRule(item, volumes))
  const names = new Set<string>()
  containers.forEach((container, index) => {
    if (names.has(container.name))
      throw (items[index] ?? list).fail(`repeats the name ${JSON.stringify(container.name)}`)
    names.add(container.name)
  })
  checkRequires(containers, (index, problem) => (items[index] ?? list).fail(problem))
  checkTargets(containers, (index, problem) => (items[index] ?? list).fail(problem))
  return {
    volumes,
    containers,
    pod: readPodRule(fields),
    dns: readNameServers(fields.get('dns')),
    imagePolicy: fields.get('imagePolicy')?.json(),
  }
}

/** Names must exist, and waiting must end: a circle of requirements would admit none of its containers. */
function checkRequires(containers: readonly ContainerRule[], fail: (index: number, problem: string) => Error): void {
  const done = new Set<string>()
  const visit = (index: number, path: readonly string[]): void => {
    const rule = containers[index]
    if (rule === undefined || done.has(rule.name)) return
    if (path.includes(rule.name)) throw fail(index, `requires itself: ${[...path, rule.name].join(' → ')}`)
    for (const name of rule.requires) {
      const next = containers.findIndex((candidate) => candidate.name === name)
      if (next < 0) throw fail(index, `requires ${JSON.stringify(name)}, which is no container here`)
      visit(next, [...path, rule.name])
    }
    done.add(rule.name)
  }
  for (const index of containers.keys()) visit(index, [])
}

/** A container joins the processes of one that exists by its own right: no chains. */
function checkTargets(containers: readonly ContainerRule[], fail: (index: number, problem: string) => Error): void {
  for (const [index, { targetContainer }] of containers.entries()) {
    if (targetContainer === undefined) continue
    const target = containers.find(({ name }) => name === targetContainer)
    if (target === undefined || target.targetContainer !== undefined || target === containers[index]) {
      throw fail(index, `has the targetContainer ${JSON.stringify(targetContainer)}, which is no other container here`)
    }
  }
}
