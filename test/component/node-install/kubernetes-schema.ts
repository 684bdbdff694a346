/**
 * Kubernetes' own description of its objects: the models that its Python client was generated with from the API's OpenAPI
 * document, as Debian packages it. Says which members an object has, of which kind, and which of them it must have.
 */
import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { cachedDirectory } from '#tools/cache/entry'
import { obtainPackages } from '#tools/debian/packages'

const PIN = {
  name: 'python3-kubernetes',
  version: '22.6.0-2',
  sha256: '60d18219e26a2a7c745aac4bc2e94e8e96492803a76f354383fb1a26f60201e2',
}
const MODELS = 'usr/lib/python3/dist-packages/kubernetes/client/models'

interface Model {
  /** JSON name → type. */
  readonly members: ReadonlyMap<string, string>
  readonly required: readonly string[]
}

export class KubernetesSchema {
  readonly #folder: string
  readonly #models = new Map<string, Model>()

  private constructor(folder: string) {
    this.#folder = folder
  }

  static async open(): Promise<KubernetesSchema> {
    const [found] = await obtainPackages('bookworm', [PIN])
    if (found === undefined) throw new Error('Debian has no python3-kubernetes')
    const folder = await cachedDirectory('tools', `kubernetes-${found.sha256.slice(0, 32)}`, async (directory) => {
      execFileSync('dpkg-deb', ['--extract', found.file, directory])
    })
    return new KubernetesSchema(join(folder, MODELS))
  }

  /** What is wrong with an object; empty: nothing. */
  problems(manifest: Readonly<Record<string, unknown>>): readonly string[] {
    const { apiVersion, kind } = manifest
    const version = String(apiVersion).split('/').at(-1) ?? ''
    return this.#object(manifest, `V${version.slice(1)}${String(kind)}`, String(kind))
  }

  #object(value: unknown, type: string, path: string): readonly string[] {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) return [`${path} is no object`]
    const { members, required } = this.#model(type)
    const absent = required.filter((name) => !(name in value)).map((name) => `${path}.${name} is missing`)
    const wrong = Object.entries(value).flatMap(([name, inner]) => {
      const memberType = members.get(name)
      return memberType === undefined
        ? [`${path}.${name} does not exist`]
        : this.#value(inner, memberType, `${path}.${name}`)
    })
    return [...absent, ...wrong]
  }

  #value(value: unknown, type: string, path: string): readonly string[] {
    const list = /^list\[(.+)\]$/.exec(type)?.[1]
    if (list !== undefined) {
      if (!Array.isArray(value)) return [`${path} is no list`]
      return value.flatMap((item, index) => this.#value(item, list, `${path}[${index}]`))
    }
    const map = /^dict\(str, (.+)\)$/.exec(type)?.[1]
    if (map !== undefined) {
      if (typeof value !== 'object' || value === null || Array.isArray(value)) return [`${path} is no map`]
      return Object.entries(value).flatMap(([name, item]) => this.#value(item, map, `${path}.${name}`))
    }
    const plain: Readonly<Record<string, boolean>> = {
      str: typeof value === 'string',
      int: Number.isInteger(value),
      bool: typeof value === 'boolean',
      // A number or a name: ports, quantities.
      object: ['string', 'number'].includes(typeof value),
    }
    if (type in plain) return plain[type] === true ? [] : [`${path} is no ${type}`]
    return this.#object(value, type, path)
  }

  #model(type: string): Model {
    const known = this.#models.get(type)
    if (known !== undefined) return known
    const file = `${type
      .replaceAll(/([a-z0-9])([A-Z])/g, '$1_$2')
      .replaceAll(/([A-Z]+)([A-Z][a-z])/g, '$1_$2')
      .toLowerCase()}.py`
    const path = join(this.#folder, file)
    if (!existsSync(path)) throw new Error(`Kubernetes has no ${type} (${file})`)
    const text = readFileSync(path, 'utf8')
    const table = (name: string): Map<string, string> => {
      const body = new RegExp(`${name} = \\{([^}]*)\\}`).exec(text)?.[1] ?? ''
      return new Map([...body.matchAll(/'(\w+)': '([^']+)'/g)].map(([, key = '', value = '']) => [key, value]))
    }
    const types = table('openapi_types')
    const names = table('attribute_map')
    const required = [...text.matchAll(/Invalid value for `(\w+)`, must not be `None`/g)].map(
      ([, name = '']) => names.get(name) ?? name,
    )
    const model = {
      members: new Map([...types].map(([name, memberType]) => [names.get(name) ?? name, memberType])),
      required: [...new Set(required)],
    }
    this.#models.set(type, model)
    return model
  }
}
