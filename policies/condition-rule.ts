/** Conditions of a container as the policy writes them. `container-conditions.ts` compiles and judges them. */
import type { PolicyNode } from './document.ts'

export interface ConditionRule {
  readonly name: string
  /** CEL over `request`; it must be true. */
  readonly expression: string
  /** What the tenant wants people to read when it is not. */
  readonly remedy: string | undefined
  /** Line of the policy. */
  readonly line: number
}

const MAX_CONDITIONS = 16
const MAX_CHARACTERS = 2048
const NAME = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/

/** Throws `MalformedError` ERR_POLICY_MALFORMED. */
export function readConditionRules(node: PolicyNode | undefined): readonly ConditionRule[] {
  const items = node?.items() ?? []
  if (node !== undefined && items.length > MAX_CONDITIONS) {
    throw node.fail(`has ${items.length} entries, at most ${MAX_CONDITIONS}`)
  }
  const names = new Set<string>()
  return items.map((item) => {
    const fields = item.fields(['name', 'require', 'remedy'])
    const [name, expression] = [fields.get('name'), fields.get('require')]
    if (name === undefined || expression === undefined) throw item.fail('needs the keys name and require')
    if (!NAME.test(name.string())) throw name.fail('must be a DNS label: lower-case letters, digits, dashes')
    if (names.has(name.string())) throw name.fail(`repeats the name ${JSON.stringify(name.string())}`)
    names.add(name.string())
    const remedy = fields.get('remedy')
    for (const text of [expression, remedy]) {
      if (text !== undefined && text.string().length > MAX_CHARACTERS) {
        throw text.fail(`has more than ${MAX_CHARACTERS} characters`)
      }
    }
    return { name: name.string(), expression: expression.string(), remedy: remedy?.string(), line: item.line }
  })
}
