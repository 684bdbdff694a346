/** The certificate that a container gets: a name of its own, which the tenant's verifier must grant. */
import { isDnsName } from '#protocol/dns-name'
import { absolutePath, bounded, requiredField } from './container-rule.ts'
import type { PolicyNode } from './document.ts'

export interface IdentityRule {
  /** Directory in the container: key.pem, cert.pem and ca.pem, read-only. */
  readonly path: string
  /** DNS names, lower case. */
  readonly names: readonly string[]
  /** Owner of the key's file, which only it can read. */
  readonly uid: number
  readonly gid: number
}

const MAX_NAMES = 16
const MAX_ID = 0xfffffffe

/** Throws `MalformedError` ERR_POLICY_MALFORMED. */
export function readIdentityRule(node: PolicyNode | undefined): IdentityRule | undefined {
  if (node === undefined) return undefined
  const fields = node.fields(['path', 'names', 'uid', 'gid'])
  const list = requiredField(fields, 'names', node)
  const names = bounded(list, MAX_NAMES).map(readName)
  if (names.length === 0) throw list.fail('must not be empty')
  if (new Set(names).size !== names.length) throw list.fail('names a name twice')
  return {
    path: absolutePath(requiredField(fields, 'path', node)),
    names,
    uid: fields.get('uid')?.integer(0, MAX_ID) ?? 0,
    gid: fields.get('gid')?.integer(0, MAX_ID) ?? 0,
  }
}

function readName(node: PolicyNode): string {
  const name = node.string()
  if (!isDnsName(name)) throw node.fail('must be a DNS name in lower case, such as web.shop.example')
  return name
}
