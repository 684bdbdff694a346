/**
 * Kubernetes objects out of YAML files: the pod templates of workloads, and the ConfigMaps, Secrets and claims that they
 * name. Files are the tenant's own, so errors are explained rather than feared; sizes are bounded all the same.
 */
import { parseAllDocuments } from 'yaml'
import { MalformedError } from '#protocol/errors'

/** A mapping of a Kubernetes object, members unread. */
export type KubeObject = Readonly<Record<string, unknown>>

export interface PodTemplate {
  /** "Deployment/shop" */
  readonly owner: string
  readonly name: string
  readonly namespace: string | undefined
  /** A pod of its own has its name; pods of other kinds get one when they are made. */
  readonly podName: string | undefined
  readonly labels: KubeObject
  readonly annotations: KubeObject
  readonly spec: KubeObject
  /** Where the template is: file, document, and path of its `metadata` and `spec` parent. */
  readonly place: { readonly file: string; readonly document: number; readonly path: readonly string[] }
}

export interface KubernetesObjects {
  readonly templates: readonly PodTemplate[]
  readonly configMaps: ReadonlyMap<string, KubeObject>
  readonly secrets: ReadonlyMap<string, KubeObject>
}

const MAX_FILE_CHARS = 4 * 1024 * 1024
const MAX_ALIASES = 100
const MAX_DOCUMENTS = 1000

/** Kind → path from the object to its pod template. */
const TEMPLATES: Readonly<Record<string, readonly string[]>> = {
  Pod: [],
  Deployment: ['spec', 'template'],
  ReplicaSet: ['spec', 'template'],
  ReplicationController: ['spec', 'template'],
  StatefulSet: ['spec', 'template'],
  DaemonSet: ['spec', 'template'],
  Job: ['spec', 'template'],
  CronJob: ['spec', 'jobTemplate', 'spec', 'template'],
}

/** Throws `MalformedError` ERR_KUBERNETES_YAML, naming file and line. */
export function parseKubernetesFiles(
  files: readonly { readonly name: string; readonly text: string }[],
): KubernetesObjects {
  const templates: PodTemplate[] = []
  const configMaps = new Map<string, KubeObject>()
  const secrets = new Map<string, KubeObject>()
  for (const file of files) {
    readDocuments(file).forEach((root, document) => {
      for (const object of flatten(root, file.name)) {
        const kind = text(object.kind) ?? ''
        const name = text(objectOf(object.metadata)?.name) ?? text(objectOf(object.metadata)?.generateName) ?? ''
        if (kind === 'ConfigMap') configMaps.set(name, object)
        if (kind === 'Secret') secrets.set(name, object)
        const path = TEMPLATES[kind]
        if (path !== undefined) templates.push(templateOf(object, { kind, name, file: file.name, document, path }))
      }
    })
  }
  return { templates, configMaps, secrets }
}

function readDocuments(file: { readonly name: string; readonly text: string }): unknown[] {
  if (file.text.length > MAX_FILE_CHARS) throw malformed(file.name, `has more than ${MAX_FILE_CHARS} characters`)
  const documents = parseAllDocuments(file.text)
  if (!Array.isArray(documents)) return []
  if (documents.length > MAX_DOCUMENTS) throw malformed(file.name, `has more than ${MAX_DOCUMENTS} documents`)
  return documents.map((document) => {
    const [problem] = document.errors
    if (problem !== undefined) {
      throw malformed(file.name, `line ${problem.linePos?.[0].line ?? 1}: ${problem.message.split('\n')[0] ?? ''}`)
    }
    try {
      return document.toJS({ maxAliasCount: MAX_ALIASES })
    } catch (cause) {
      throw malformed(file.name, 'has too many aliases', cause)
    }
  })
}

/** A `List` stands for its items. */
function flatten(root: unknown, file: string): KubeObject[] {
  if (root === null || root === undefined) return []
  const object = objectOf(root)
  if (object === undefined) throw malformed(file, 'has a document that is no object')
  if (text(object.kind) !== 'List') return [object]
  return listOf(object.items).flatMap((item) => flatten(item, file))
}

function templateOf(
  object: KubeObject,
  at: { kind: string; name: string; file: string; document: number; path: readonly string[] },
): PodTemplate {
  const template = at.path.reduce<KubeObject | undefined>((value, key) => objectOf(value?.[key]), object)
  const spec = objectOf(template?.spec)
  if (template === undefined || spec === undefined) throw malformed(at.file, `${at.kind} ${at.name} has no pod spec`)
  const metadata = objectOf(template.metadata) ?? {}
  return {
    owner: `${at.kind}/${at.name}`,
    name: at.name,
    namespace: text(objectOf(object.metadata)?.namespace),
    podName: at.kind === 'Pod' ? text(metadata.name) : undefined,
    labels: objectOf(metadata.labels) ?? {},
    annotations: objectOf(metadata.annotations) ?? {},
    spec,
    place: { file: at.file, document: at.document, path: at.path },
  }
}

export function objectOf(value: unknown): KubeObject | undefined {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? Object.fromEntries(Object.entries(value))
    : undefined
}

export function listOf(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : []
}

export function objectsOf(value: unknown): readonly KubeObject[] {
  return listOf(value)
    .map(objectOf)
    .filter((item) => item !== undefined)
}

/** YAML gives `80` and `true` as they look; Kubernetes takes them for text where text is needed. */
export function text(value: unknown): string | undefined {
  if (typeof value === 'string') return value
  return typeof value === 'number' || typeof value === 'boolean' ? String(value) : undefined
}

export function textsOf(value: unknown): readonly string[] | undefined {
  return Array.isArray(value) ? value.map((item) => text(item) ?? '') : undefined
}

function malformed(file: string, problem: string, cause?: unknown): MalformedError {
  return new MalformedError('ERR_KUBERNETES_YAML', `${file}: ${problem}`, {
    hint: 'Give the YAML that `kubectl apply` would take; render templates of Helm or kustomize first.',
    ...(cause === undefined ? {} : { cause }),
  })
}
