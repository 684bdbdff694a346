/**
 * Writes what a pod needs to run as a guest into its YAML: the annotation with its initdata and the RuntimeClass. Secrets
 * that the guest fetches itself are taken out of its environment. Everything else, comments included, stays as it was.
 */
import { type Document, isMap, isSeq, parseAllDocuments, type YAMLMap } from 'yaml'
import { MalformedError } from '#protocol/errors'
import type { PodTemplate } from './kubernetes-objects.ts'

/** Kubernetes' limit on the names and values of all annotations of an object, bytes. */
export const MAX_ANNOTATION_BYTES: number = 256 * 1024

export interface Injection {
  readonly annotation: { readonly name: string; readonly value: string }
  readonly runtimeClass: string
}

/** Throws `MalformedError` ERR_ANNOTATION_SIZE when Kubernetes would refuse the result. */
export function injectPod(text: string, pod: PodTemplate, injection: Injection): string {
  const documents = parseAllDocuments(text)
  if (!Array.isArray(documents)) throw new TypeError('a file without documents has no pod')
  const document = documents[pod.place.document]
  if (document === undefined) throw new TypeError('the pod is of another file')
  const at = (...path: string[]): string[] => [...pod.place.path, ...path]
  document.setIn(at('metadata', 'annotations', injection.annotation.name), injection.annotation.value)
  document.setIn(at('spec', 'runtimeClassName'), injection.runtimeClass)
  for (const group of ['initContainers', 'containers']) removeSecretVariables(document, at('spec', group))
  checkSize(document, at('metadata', 'annotations'))
  return documents.map((each) => each.toString({ lineWidth: 0 })).join('')
}

function removeSecretVariables(document: Document, path: readonly string[]): void {
  const containers = document.getIn(path)
  if (!isSeq(containers)) return
  for (const container of containers.items) {
    if (!isMap(container)) continue
    removeEntries(container, 'env', ['valueFrom', 'secretKeyRef'])
    removeEntries(container, 'envFrom', ['secretRef'])
  }
}

/** Entries of a list that have this member; the list as well when none is left. */
function removeEntries(container: YAMLMap, name: string, member: readonly string[]): void {
  const list = container.get(name)
  if (!isSeq(list)) return
  list.items = list.items.filter((entry) => !isMap(entry) || entry.getIn(member) === undefined)
  if (list.items.length === 0) container.delete(name)
}

function checkSize(document: Document, path: readonly string[]): void {
  const annotations = document.getIn(path)
  const entries = isMap(annotations) ? Object.entries((annotations as YAMLMap).toJSON() as Record<string, unknown>) : []
  const size = entries.reduce(
    (sum, [name, value]) => sum + Buffer.byteLength(name) + Buffer.byteLength(String(value)),
    0,
  )
  if (size <= MAX_ANNOTATION_BYTES) return
  throw new MalformedError(
    'ERR_ANNOTATION_SIZE',
    `the pod's annotations have ${size} bytes, Kubernetes takes ${MAX_ANNOTATION_BYTES}`,
    {
      hint: 'Shorten the policy: name fewer values, or move long ones into the image.',
    },
  )
}
