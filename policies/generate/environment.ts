/** The environment of a pod's container as rules, and the words of its command with references to it filled in. */
import { type Draft, OpenChoice, Remarked } from './draft.ts'
import {
  type KubeObject,
  type KubernetesObjects,
  objectOf,
  objectsOf,
  type PodTemplate,
  text,
} from './kubernetes-objects.ts'

export interface EnvironmentDraft {
  readonly rules: ReadonlyMap<string, Draft>
  /** Fills in `$(NAME)` (Kubernetes' rules: `$$` is a dollar, unknown names stay as they are). */
  readonly expand: (word: string) => Draft
}

/** Fields of the pod that only the cluster knows, and the form of their values. */
const FIELD_FORMATS: Readonly<Record<string, string>> = {
  'metadata.name': 'dns-name',
  'metadata.namespace': 'dns-name',
  'metadata.uid': 'uid',
  'spec.nodeName': 'dns-name',
  'spec.serviceAccountName': 'dns-name',
  'status.hostIP': 'ip',
  'status.podIP': 'ip',
}

export function environmentOf(container: KubeObject, pod: PodTemplate, objects: KubernetesObjects): EnvironmentDraft {
  const rules = new Map<string, Draft>()
  for (const source of objectsOf(container.envFrom)) addSource(rules, source, objects)
  for (const entry of objectsOf(container.env)) {
    const name = text(entry.name)
    if (name === undefined) continue
    const from = objectOf(entry.valueFrom)
    rules.set(name, from === undefined ? expand(text(entry.value) ?? '', rules) : valueFrom(from, pod, objects))
  }
  return { rules, expand: (word) => expand(word, rules) }
}

/** `envFrom`: every key of a ConfigMap or Secret becomes a variable. */
function addSource(rules: Map<string, Draft>, source: KubeObject, objects: KubernetesObjects): void {
  const prefix = text(source.prefix) ?? ''
  const configMap = objectOf(source.configMapRef)
  const secret = objectOf(source.secretRef)
  const [kind, name] = configMap === undefined ? ['Secret', text(secret?.name)] : ['ConfigMap', text(configMap.name)]
  const object = (configMap === undefined ? objects.secrets : objects.configMaps).get(name ?? '')
  if (object === undefined) {
    rules.set(`${prefix}*`, new OpenChoice(`variables of ${kind} ${name ?? '?'}, which is not among the files`))
    return
  }
  const keys = Object.keys({ ...objectOf(object.data), ...objectOf(object.stringData) })
  for (const key of keys) {
    rules.set(prefix + key, kind === 'Secret' ? secretRule(name ?? '', key) : configValue(object, name ?? '', key))
  }
}

function valueFrom(from: KubeObject, pod: PodTemplate, objects: KubernetesObjects): Draft {
  const field = text(objectOf(from.fieldRef)?.fieldPath)
  if (field !== undefined) return fieldValue(field, pod)
  if (objectOf(from.resourceFieldRef) !== undefined) return { format: 'integer' }
  const [configMap, secret] = [objectOf(from.configMapKeyRef), objectOf(from.secretKeyRef)]
  if (configMap !== undefined) {
    const [name, key] = [text(configMap.name) ?? '', text(configMap.key) ?? '']
    return configValue(objects.configMaps.get(name), name, key)
  }
  if (secret !== undefined) return secretRule(text(secret.name) ?? '', text(secret.key) ?? '')
  return new OpenChoice('the value of this variable: its source is not one that is known here')
}

function fieldValue(field: string, pod: PodTemplate): Draft {
  const member = /^metadata\.(labels|annotations)\['([^']+)'\]$/.exec(field)
  if (member !== null) {
    const value = text((member[1] === 'labels' ? pod.labels : pod.annotations)[member[2] ?? ''])
    return value ?? new OpenChoice(`the value of ${field}, which the template does not state`)
  }
  const known = { 'metadata.name': pod.podName, 'metadata.namespace': pod.namespace }[field]
  if (known !== undefined) return known
  const format = FIELD_FORMATS[field]
  return format === undefined ? new OpenChoice(`the value of ${field}`) : { format }
}

function configValue(object: KubeObject | undefined, name: string, key: string): Draft {
  const value = text(objectOf(object?.data)?.[key])
  return value ?? new OpenChoice(`the value of key ${key} of ConfigMap ${name}, which is not among the files`)
}

/** Never its value: the policy is public, and so is what kubelet sends through the host. */
function secretRule(name: string, key: string): Draft {
  const resource = ['default', name, key].map((part) => part.replace(/[^\w.-]/g, '-').replace(/^\.+/, '')).join('/')
  return new Remarked(
    { secret: resource },
    `store it with \`caisson verifier resource put ${resource} FILE\`, and take the variable out of the pod`,
  )
}

function expand(word: string, rules: ReadonlyMap<string, Draft>): Draft {
  let open: OpenChoice | undefined
  const filled = word.replace(/\$\$|\$\(([^)]*)\)/g, (whole: string, name: string | undefined) => {
    if (name === undefined) return '$'
    const value = rules.get(name)
    if (value === undefined) return whole
    if (typeof value === 'string') return value
    open ??= new OpenChoice(`${JSON.stringify(word)} with the value of ${name} filled in`)
    return ''
  })
  return open ?? filled
}
