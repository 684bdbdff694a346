/** Image configuration (OCI image-spec 1.1 config.md; Docker's has the same members): bytes to value. */
import { MalformedError } from '#protocol/errors'
import { type Digest, parseDigest } from '#protocol/oci/digest'
import { asArray, asObject, optionalKeys, optionalString, optionalStringMap, optionalStrings } from '../json/fields.ts'
import { parseStrictJson } from '../json/strict-json.ts'
import type { WantedPlatform } from './platform.ts'

export interface ImageConfig {
  readonly architecture: string
  readonly os: string
  /** "user", "uid", "uid:gid", "user:group"; empty means root. */
  readonly user: string
  /** "8443/tcp" */
  readonly exposedPorts: readonly string[]
  /** "NAME=value", in order. */
  readonly env: readonly string[]
  readonly entrypoint: readonly string[]
  readonly cmd: readonly string[]
  /** Absolute and normalised, none the root itself; each once. */
  readonly volumes: readonly string[]
  /** Absolute; "/" when the image names none. */
  readonly workingDir: string
  readonly labels: ReadonlyMap<string, string>
  /** "SIGQUIT", "3" or empty for the default, SIGTERM. */
  readonly stopSignal: string
  /** One per layer, base first. */
  readonly diffIds: readonly Digest[]
}

const MAX_ITEMS = 4096
/** Each is a file system of its own in the guest. */
const MAX_VOLUMES = 64

/** Throws `MalformedError` ERR_JSON, ERR_IMAGE_DOCUMENT or ERR_DIGEST. */
export function parseImageConfig(bytes: Uint8Array, what: string): ImageConfig {
  const document = asObject(parseStrictJson(bytes, what), what)
  const rootfs = asObject(document.rootfs, `${what}: rootfs`)
  if (rootfs.type !== 'layers') throw new MalformedError('ERR_IMAGE_DOCUMENT', `${what}: rootfs.type is not "layers"`)
  const diffIds =
    rootfs.diff_ids === undefined || rootfs.diff_ids === null
      ? []
      : asArray(rootfs.diff_ids, `${what}: rootfs.diff_ids`, MAX_ITEMS)
  const run =
    document.config === undefined || document.config === null ? {} : asObject(document.config, `${what}: config`)
  return {
    architecture: optionalString(document.architecture, `${what}: architecture`),
    os: optionalString(document.os, `${what}: os`),
    user: optionalString(run.User, `${what}: config.User`),
    exposedPorts: optionalKeys(run.ExposedPorts, `${what}: config.ExposedPorts`, MAX_ITEMS),
    env: parseEnv(optionalStrings(run.Env, `${what}: config.Env`, MAX_ITEMS), what),
    entrypoint: optionalStrings(run.Entrypoint, `${what}: config.Entrypoint`, MAX_ITEMS),
    cmd: optionalStrings(run.Cmd, `${what}: config.Cmd`, MAX_ITEMS),
    volumes: parseVolumes(optionalKeys(run.Volumes, `${what}: config.Volumes`, MAX_VOLUMES), what),
    workingDir: parseWorkingDir(optionalString(run.WorkingDir, `${what}: config.WorkingDir`), what),
    labels: optionalStringMap(run.Labels, `${what}: config.Labels`),
    stopSignal: optionalString(run.StopSignal, `${what}: config.StopSignal`),
    diffIds: diffIds.map((id, index) => parseDigest(id, `${what}: rootfs.diff_ids[${index}]`)),
  }
}

/** An index may say what it likes about a manifest: the image's own configuration decides. Throws ERR_IMAGE_PLATFORM. */
export function checkPlatform(config: ImageConfig, wanted: WantedPlatform, what: string): void {
  if (config.os !== wanted.os || config.architecture !== wanted.architecture) {
    throw new MalformedError(
      'ERR_IMAGE_PLATFORM',
      `${what}: is for ${JSON.stringify(`${config.os}/${config.architecture}`)}, not ${wanted.os}/${wanted.architecture}`,
      { hint: `Build and push the image for ${wanted.os}/${wanted.architecture}.` },
    )
  }
}

function parseEnv(env: readonly string[], what: string): readonly string[] {
  for (const entry of env) {
    if (!/^[^=]+=/.test(entry)) {
      throw new MalformedError(
        'ERR_IMAGE_DOCUMENT',
        `${what}: config.Env: not NAME=value: ${JSON.stringify(entry.slice(0, 100))}`,
      )
    }
  }
  return env
}

function parseVolumes(volumes: readonly string[], what: string): readonly string[] {
  return [...new Set(volumes.map((volume) => parseVolume(volume, what)))]
}

function parseVolume(volume: string, what: string): string {
  const parts = volume.split('/').filter((part) => part !== '' && part !== '.')
  if (volume.startsWith('/') && parts.length > 0 && !parts.includes('..') && !volume.includes('\0')) {
    return `/${parts.join('/')}`
  }
  throw new MalformedError(
    'ERR_IMAGE_DOCUMENT',
    `${what}: config.Volumes has no absolute path below the root: ${JSON.stringify(volume.slice(0, 200))}`,
  )
}

function parseWorkingDir(path: string, what: string): string {
  if (path === '') return '/'
  if (!path.startsWith('/') || path.split('/').includes('..')) {
    throw new MalformedError(
      'ERR_IMAGE_DOCUMENT',
      `${what}: config.WorkingDir is not an absolute path: ${JSON.stringify(path.slice(0, 200))}`,
    )
  }
  return path
}
