/**
 * Initdata: the tenant's public configuration of a guest, bound to the measurement before anything reads it.
 *
 * TOML in the 0.1.0 convention of confidential containers: `version`, `algorithm`, `[data]` with string members. The
 * digest is over the exact bytes. Unknown members are refused: what the guest ignores, a tenant might believe.
 */
import { parse, stringify } from 'smol-toml'
import { errorText, MalformedError } from './errors.ts'
import { parseTenantKey } from './tenant-key.ts'

/** Bytes of TOML at most; the disk format in `guest/init` has the same limit. */
export const MAX_INITDATA_BYTES: number = 1024 * 1024

export interface Initdata {
  /** Verifier (KBS) base URL and the CA that its certificate chains to. Undefined on platform `none` only. */
  readonly verifier: { readonly url: string; readonly caPem: string } | undefined
  /** Roots that registries may use; no others are trusted. */
  readonly registryCaPem: readonly string[]
  /** repository/type/tag of the containers-policy.json resource; undefined: inline in the workload policy. */
  readonly imagePolicyResource: string | undefined
  /** repository/type/tag of the registry credentials resource. */
  readonly registryCredentialsResource: string | undefined
  /** repository/type/tag of a registries.d file: where OpenPGP signatures are kept. */
  readonly signatureStorageResource?: string | undefined
  /** repository/type/tag of a registries.conf: mirrors, locations and blocks. */
  readonly registriesConfResource?: string | undefined
  /** HTTP proxy on the way to registries, and hosts that need none. */
  readonly registryProxy?: { readonly url: string; readonly noProxy: readonly string[] } | undefined
  /** What a pull may take; the engine's own measure where there is none. */
  readonly pulls?: PullBounds | undefined
  /** Text of the workload policy. */
  readonly policyYaml: string
  /** Public JWK to which refusal reasons are sealed. */
  readonly tenantKeyJwk: string | undefined
}

/** The most of each that an image's pull has at a time. */
export interface PullBounds {
  /** Layers whose bytes come, 1 to 16; threads and buffers go with them. */
  readonly layers?: number | undefined
  /** Connections to registries, 1 to 32. */
  readonly connections?: number | undefined
}

export const MAX_PULL_LAYERS: number = 16
export const MAX_PULL_CONNECTIONS: number = 32

const DATA_KEYS = ['aa.toml', 'cdh.toml', 'policy.yaml', 'tenant-key.jwk']

/** Throws `MalformedError` with the code `ERR_INITDATA_MALFORMED`. */
export function parseInitdata(bytes: Uint8Array): Initdata {
  if (bytes.byteLength > MAX_INITDATA_BYTES) {
    throw malformed(`has ${bytes.byteLength} bytes, at most ${MAX_INITDATA_BYTES}`)
  }
  const document = parseToml(bytes, 'initdata')
  onlyKeys(document, ['version', 'algorithm', 'data'], 'initdata')
  if (document.version !== '0.1.0') throw malformed(`version is ${show(document.version)}, expected "0.1.0"`)
  if (document.algorithm !== 'sha256') throw malformed(`algorithm is ${show(document.algorithm)}, expected "sha256"`)
  const data = table(document.data, 'data')
  onlyKeys(data, DATA_KEYS, 'data')
  const image = parseDataHub(optionalString(data['cdh.toml'], 'data."cdh.toml"'))
  return {
    verifier: parseAgent(optionalString(data['aa.toml'], 'data."aa.toml"')),
    registryCaPem: image.roots,
    imagePolicyResource: image.policy,
    registryCredentialsResource: image.credentials,
    ...(image.storage === undefined ? {} : { signatureStorageResource: image.storage }),
    ...(image.registries === undefined ? {} : { registriesConfResource: image.registries }),
    ...(image.proxy === undefined ? {} : { registryProxy: image.proxy }),
    ...(image.pulls === undefined ? {} : { pulls: image.pulls }),
    policyYaml: requiredString(data['policy.yaml'], 'data."policy.yaml"'),
    tenantKeyJwk: parseKey(optionalString(data['tenant-key.jwk'], 'data."tenant-key.jwk"')),
  }
}

/** Deterministic text for these values: equal input gives equal bytes, hence an equal digest. */
export function encodeInitdata(initdata: Initdata): Uint8Array {
  const data: Record<string, string> = {}
  if (initdata.verifier !== undefined) {
    const { url, caPem } = initdata.verifier
    data['aa.toml'] = stringify({ token_configs: { kbs: { url, cert: caPem } } })
  }
  const image: Record<string, string | number | string[] | Record<string, string>> = {}
  if (initdata.imagePolicyResource !== undefined) {
    image.image_security_policy_uri = `kbs:///${initdata.imagePolicyResource}`
  }
  if (initdata.registryCredentialsResource !== undefined) {
    image.authenticated_registry_credentials_uri = `kbs:///${initdata.registryCredentialsResource}`
  }
  if (initdata.signatureStorageResource !== undefined) {
    image.sigstore_config_uri = `kbs:///${initdata.signatureStorageResource}`
  }
  if (initdata.registriesConfResource !== undefined) {
    image.registry_configuration_uri = `kbs:///${initdata.registriesConfResource}`
  }
  if (initdata.registryProxy !== undefined) {
    const { url, noProxy } = initdata.registryProxy
    image.image_pull_proxy = { https_proxy: url, ...(noProxy.length === 0 ? {} : { no_proxy: noProxy.join(',') }) }
  }
  const { layers, connections } = initdata.pulls ?? {}
  if (layers !== undefined) image.max_concurrent_layer_downloads_per_image = layers
  if (connections !== undefined) image.max_registry_connections = connections
  if (initdata.registryCaPem.length > 0) image.extra_root_certificates = [...initdata.registryCaPem]
  if (Object.keys(image).length > 0) data['cdh.toml'] = stringify({ image })
  data['policy.yaml'] = initdata.policyYaml
  if (initdata.tenantKeyJwk !== undefined) data['tenant-key.jwk'] = initdata.tenantKeyJwk
  const bytes = new TextEncoder().encode(stringify({ version: '0.1.0', algorithm: 'sha256', data }))
  parseInitdata(bytes) // what we write, the guest must accept
  return bytes
}

function parseAgent(text: string | undefined): Initdata['verifier'] {
  if (text === undefined) return undefined
  const document = parseToml(text, 'aa.toml')
  onlyKeys(document, ['token_configs'], 'aa.toml')
  const configs = table(document.token_configs, 'aa.toml token_configs')
  onlyKeys(configs, ['kbs'], 'aa.toml token_configs')
  const kbs = table(configs.kbs, 'aa.toml token_configs.kbs')
  onlyKeys(kbs, ['url', 'cert'], 'aa.toml token_configs.kbs')
  const url = requiredString(kbs.url, 'aa.toml token_configs.kbs.url')
  if (!URL.canParse(url) || new URL(url).protocol !== 'https:') {
    throw malformed(`aa.toml token_configs.kbs.url is ${show(url)}, expected an https URL`)
  }
  return { url, caPem: requiredString(kbs.cert, 'aa.toml token_configs.kbs.cert') }
}

function parseDataHub(text: string | undefined): {
  roots: readonly string[]
  policy: string | undefined
  credentials: string | undefined
  storage: string | undefined
  registries: string | undefined
  proxy: Initdata['registryProxy']
  pulls: Initdata['pulls']
} {
  if (text === undefined) {
    const nothing = { policy: undefined, credentials: undefined, storage: undefined, registries: undefined }
    return { roots: [], ...nothing, proxy: undefined, pulls: undefined }
  }
  const document = parseToml(text, 'cdh.toml')
  onlyKeys(document, ['image'], 'cdh.toml')
  const image = table(document.image, 'cdh.toml image')
  onlyKeys(
    image,
    [
      'image_security_policy_uri',
      'authenticated_registry_credentials_uri',
      'sigstore_config_uri',
      'registry_configuration_uri',
      'image_pull_proxy',
      'max_concurrent_layer_downloads_per_image',
      'max_registry_connections',
      'extra_root_certificates',
    ],
    'cdh.toml image',
  )
  const roots = image.extra_root_certificates ?? []
  if (!Array.isArray(roots) || roots.length > 64) {
    throw malformed('cdh.toml image.extra_root_certificates must be a list of at most 64 PEM texts')
  }
  return {
    roots: roots.map((root) => requiredString(root, 'cdh.toml image.extra_root_certificates[]')),
    policy: resourceOf(image.image_security_policy_uri, 'image_security_policy_uri'),
    credentials: resourceOf(image.authenticated_registry_credentials_uri, 'authenticated_registry_credentials_uri'),
    storage: resourceOf(image.sigstore_config_uri, 'sigstore_config_uri'),
    registries: resourceOf(image.registry_configuration_uri, 'registry_configuration_uri'),
    proxy: image.image_pull_proxy === undefined ? undefined : parseProxy(image.image_pull_proxy),
    pulls: parsePulls(image),
  }
}

function parsePulls(image: Record<string, unknown>): Initdata['pulls'] {
  const bound = (name: string, most: number): number | undefined => {
    const value = image[name]
    if (value === undefined) return undefined
    if (typeof value === 'number' && Number.isInteger(value) && value >= 1 && value <= most) return value
    throw malformed(`cdh.toml image.${name} is ${show(value)}, expected a number from 1 to ${most}`)
  }
  const layers = bound('max_concurrent_layer_downloads_per_image', MAX_PULL_LAYERS)
  const connections = bound('max_registry_connections', MAX_PULL_CONNECTIONS)
  return layers === undefined && connections === undefined ? undefined : { layers, connections }
}

/** Everything goes through one proxy: what is http only is told apart by no_proxy. */
function parseProxy(value: unknown): Initdata['registryProxy'] {
  const proxy = table(value, 'cdh.toml image.image_pull_proxy')
  onlyKeys(proxy, ['https_proxy', 'no_proxy'], 'cdh.toml image.image_pull_proxy')
  const url = requiredString(proxy.https_proxy, 'cdh.toml image.image_pull_proxy.https_proxy')
  if (!URL.canParse(url) || !/^https?:$/.test(new URL(url).protocol)) {
    throw malformed('cdh.toml image.image_pull_proxy.https_proxy is not an http or https URL')
  }
  const noProxy = optionalString(proxy.no_proxy, 'cdh.toml image.image_pull_proxy.no_proxy') ?? ''
  return { url, noProxy: noProxy.split(',').filter((name) => name !== '') }
}

function resourceOf(value: unknown, name: string): string | undefined {
  const text = optionalString(value, `cdh.toml image.${name}`)
  if (text === undefined) return undefined
  const match = /^kbs:\/\/\/([\w-][\w.-]*(?:\/[\w-][\w.-]*){2})$/.exec(text)
  if (match?.[1] === undefined)
    throw malformed(`cdh.toml image.${name} is ${show(text)}, expected kbs:///repository/type/tag`)
  return match[1]
}

/** The text, when it is a key that reasons can be sealed to. */
function parseKey(text: string | undefined): string | undefined {
  if (text === undefined) return undefined
  try {
    parseTenantKey(text)
    return text
  } catch (cause) {
    throw malformed(`tenant-key.jwk: ${errorText(cause)}`, cause)
  }
}

function parseToml(input: Uint8Array | string, what: string): Record<string, unknown> {
  try {
    // Fatal: invalid UTF-8 must not become replacement characters with another meaning.
    return parse(typeof input === 'string' ? input : new TextDecoder('utf-8', { fatal: true }).decode(input))
  } catch (cause) {
    throw malformed(`${what} is not valid TOML`, cause)
  }
}

function onlyKeys(value: Record<string, unknown>, known: readonly string[], what: string): void {
  for (const key of Object.keys(value)) {
    if (!known.includes(key)) throw malformed(`${what} has the unknown member ${show(key)}; known: ${known.join(', ')}`)
  }
}

function table(value: unknown, what: string): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value) || value instanceof Date) {
    throw malformed(`${what} must be a table`)
  }
  return { ...value }
}

function requiredString(value: unknown, what: string): string {
  const text = optionalString(value, what)
  if (text === undefined) throw malformed(`${what} is missing`)
  return text
}

function optionalString(value: unknown, what: string): string | undefined {
  if (value !== undefined && typeof value !== 'string') throw malformed(`${what} must be a string`)
  return value
}

function show(value: unknown): string {
  return JSON.stringify(value)?.slice(0, 80) ?? 'missing'
}

function malformed(problem: string, cause?: unknown): MalformedError {
  return new MalformedError('ERR_INITDATA_MALFORMED', `initdata ${problem}`, {
    hint: 'Create it with `caisson initdata create`.',
    ...(cause === undefined ? {} : { cause }),
  })
}
