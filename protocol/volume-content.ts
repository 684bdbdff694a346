/**
 * The content of a volume as files: what the kubelet writes for ConfigMaps, Secrets, projected volumes and the downward
 * API. Bounds and names are those of Kubernetes; the digest stands for names and bytes together.
 */
import { canonicalJsonBytes } from './canonical-json.ts'
import type { CryptoProvider } from './crypto-provider.ts'
import { toHex } from './encoding.ts'
import { MalformedError } from './errors.ts'

export interface VolumeFile {
  /** Relative: "a", "a/b". */
  readonly path: string
  readonly content: Uint8Array
}

/** What a volume's files may hold together: the largest ConfigMap or Secret (MaxSecretSize). Bytes. */
export const MAX_VOLUME_BYTES: number = 1024 * 1024
export const MAX_VOLUME_FILES = 1024
export const MAX_VOLUME_PATH = 1024

const MAX_DEPTH = 8
/** A key of a ConfigMap (IsConfigMapKey). Names that start with ".." are the writer's own. */
const PART = /^(?!\.{1,2}$)(?!\.\.)[-._A-Za-z0-9]{1,253}$/
const VOLUME_NAME = /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/

/** The parts of a file's path. @throws MalformedError ERR_VOLUME_CONTENT */
export function parseVolumePath(path: string): readonly string[] {
  const parts = path.length > MAX_VOLUME_PATH ? [] : path.split('/')
  if (parts.length === 0 || parts.length > MAX_DEPTH || !parts.every((part) => PART.test(part))) {
    throw malformed(
      `${JSON.stringify(path.slice(0, 64))} is no path of a file in a volume`,
      'Names are letters, digits, ".", "_" and "-", at most 253 and not starting with ".."; a path has at most 8 of them.',
    )
  }
  return parts
}

/** A DNS label, as Kubernetes names volumes. @throws MalformedError ERR_VOLUME_CONTENT */
export function parseVolumeName(name: string): string {
  if (!VOLUME_NAME.test(name)) throw malformed('the name of a volume is no DNS label', 'Rename the volume.')
  return name
}

/** No file twice, none that is also a directory, within the bounds. @throws MalformedError ERR_VOLUME_CONTENT */
export function checkVolumeFiles(files: readonly VolumeFile[]): void {
  const total = files.reduce((sum, { content }) => sum + content.byteLength, 0)
  if (files.length > MAX_VOLUME_FILES || total > MAX_VOLUME_BYTES) {
    throw malformed(
      `${files.length} files of ${total} bytes; at most ${MAX_VOLUME_FILES} files of ${MAX_VOLUME_BYTES} bytes`,
      'Split the volume, or put the files into the image.',
    )
  }
  const seen = new Set<string>()
  const folders = new Set<string>()
  for (const { path } of files) {
    if (seen.has(path)) throw malformed(`${path} comes twice`)
    seen.add(path)
    const parts = parseVolumePath(path)
    for (let depth = 1; depth < parts.length; depth++) folders.add(parts.slice(0, depth).join('/'))
  }
  for (const folder of folders) if (seen.has(folder)) throw malformed(`${folder} is a file and a directory`)
}

/** "sha256:…" over the canonical JSON (RFC 8785) of `{path: "sha256:" + hex of the content}`. */
export function volumeDigest(crypto: Pick<CryptoProvider, 'createHash'>, files: readonly VolumeFile[]): string {
  const digest = (bytes: Uint8Array): string => {
    const hash = crypto.createHash('sha256')
    hash.update(bytes)
    return `sha256:${toHex(hash.digest())}`
  }
  const members = files.map(({ path, content }) => [path, digest(content)] as const)
  return digest(canonicalJsonBytes(Object.fromEntries(members)))
}

function malformed(problem: string, hint?: string): MalformedError {
  return new MalformedError('ERR_VOLUME_CONTENT', `the content of a volume: ${problem}`, { hint })
}
