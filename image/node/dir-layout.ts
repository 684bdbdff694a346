/** Images as `skopeo copy … dir:FOLDER` writes them: manifest.json, blobs by digest, signature-1, signature-2… */
import { readFile, realpath, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { errorText, MalformedError, UnavailableError } from '#protocol/errors'
import { nodeCrypto } from '#protocol/node/crypto'
import { computeDigest, type Digest } from '#protocol/oci/digest'
import { DEFAULT_LIMITS } from '../limits.ts'
import { parseSignatureBlob } from '../signature/blob.ts'
import type { FoundSignature } from '../signature/found.ts'

export interface DirImage {
  /** Absolute, without symbolic links. */
  readonly path: string
  readonly manifestBytes: Uint8Array
  /** Computed from the bytes that lie there. */
  readonly digest: Digest
  /** Signatures are those of the one manifest: another digest has none. */
  readonly signaturesOf: (digest: Digest, kind: FoundSignature['kind']) => Promise<readonly FoundSignature[]>
}

/** Throws `UnavailableError` ERR_DIR_IMAGE_MISSING, or `MalformedError` ERR_DIR_IMAGE for files beyond their bounds. */
export async function openDirImage(folder: string): Promise<DirImage> {
  const manifestBytes = await readBounded(join(folder, 'manifest.json'), DEFAULT_LIMITS.maxManifestBytes)
  if (manifestBytes === undefined) {
    throw new UnavailableError('ERR_DIR_IMAGE_MISSING', `${folder}: no manifest.json`, {
      hint: 'Name a folder as skopeo copies to with dir:FOLDER.',
    })
  }
  const digest = computeDigest(nodeCrypto, manifestBytes)
  return {
    path: await realpath(folder),
    manifestBytes,
    digest,
    signaturesOf: async (asked, kind) => {
      if (asked !== digest) return []
      return (await readSignatures(folder)).filter((found) => found.kind === kind)
    },
  }
}

/** Whether a folder is to be read so: it is, unless it has the index that an OCI layout has. */
export async function isDirImage(folder: string): Promise<boolean> {
  return await stat(join(folder, 'index.json')).then(
    () => false,
    () => true,
  )
}

async function readSignatures(folder: string): Promise<readonly FoundSignature[]> {
  const signatures: FoundSignature[] = []
  for (let number = 1; ; number++) {
    const source = `signature-${number}`
    const bytes = await readBounded(join(folder, source), DEFAULT_LIMITS.maxSignatureBytes)
    if (bytes === undefined) return signatures
    if (number > DEFAULT_LIMITS.maxSignatures) {
      throw new MalformedError('ERR_DIR_IMAGE', `${folder}: more than ${DEFAULT_LIMITS.maxSignatures} signatures`)
    }
    const found = parseSignatureBlob(bytes, source)
    if (found !== undefined) signatures.push(found)
  }
}

async function readBounded(path: string, maxBytes: number): Promise<Uint8Array | undefined> {
  try {
    const { size } = await stat(path)
    if (size > maxBytes) throw new MalformedError('ERR_DIR_IMAGE', `${path}: ${size} bytes, at most ${maxBytes}`)
    return await readFile(path)
  } catch (error) {
    if (error instanceof MalformedError) throw error
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw new UnavailableError('ERR_DIR_IMAGE_MISSING', `${path}: ${errorText(error)}`, { cause: error })
  }
}
