/** What a container may ask of the guest through its loopback endpoint. Whatever is absent is denied. */
import type { PolicyNode } from './document.ts'
import { RESOURCE_NAME } from './env-rule.ts'

export interface ApiRule {
  /** `repository/type/tag` at the verifier, each by its whole name. */
  readonly resources: readonly string[]
  /** The guest's attestation token, without the key that it is bound to. */
  readonly token: boolean
  /** Evidence over data of the container's choice. */
  readonly evidence: boolean
}

/** One call of the endpoint. */
export type ApiRequest =
  | { readonly kind: 'resource'; readonly resource: string }
  | { readonly kind: 'token' | 'evidence' | 'info' }

const MAX_RESOURCES = 256

/** `api` of a container. Throws `MalformedError` ERR_POLICY_MALFORMED. */
export function readApiRule(node: PolicyNode | undefined): ApiRule | undefined {
  if (node === undefined) return undefined
  const fields = node.fields(['resources', 'token', 'evidence'])
  const names = fields.get('resources')?.items() ?? []
  if (names.length > MAX_RESOURCES) throw node.fail(`has ${names.length} resources, at most ${MAX_RESOURCES}`)
  const resources = names.map((name) => {
    if (!RESOURCE_NAME.test(name.string())) throw name.fail('must be repository/type/tag')
    return name.string()
  })
  const rule = {
    resources,
    token: fields.get('token')?.boolean() ?? false,
    evidence: fields.get('evidence')?.boolean() ?? false,
  }
  if (resources.length === 0 && !rule.token && !rule.evidence) {
    throw node.fail('grants nothing', 'Leave `api` out, or name resources, token: true or evidence: true.')
  }
  return rule
}

/** What a denial of `request` says: the field of the rule, and what it allows; undefined when it is allowed. */
export function apiProblem(
  rule: ApiRule | undefined,
  request: ApiRequest,
): { readonly field: string; readonly allowed: string; readonly asked: string } | undefined {
  if (rule === undefined) return { field: 'api', allowed: 'nothing', asked: askedText(request) }
  if (request.kind === 'info') return undefined
  if (request.kind !== 'resource') {
    return rule[request.kind] ? undefined : { field: `api.${request.kind}`, allowed: 'false', asked: 'true' }
  }
  if (rule.resources.includes(request.resource)) return undefined
  const allowed = rule.resources.length === 0 ? 'nothing' : rule.resources.join(', ')
  return { field: 'api.resources', allowed, asked: request.resource }
}

function askedText(request: ApiRequest): string {
  return request.kind === 'resource' ? request.resource : request.kind
}
