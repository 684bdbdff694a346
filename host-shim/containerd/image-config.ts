/**
 * What containerd knows of an image that it "pulled": index, manifest and configuration, without a layer. The host's view
 * serves to tell what a pod's author wrote from what the image says anyway; the guest verifies an image of its own.
 */
import { createHash } from 'node:crypto'
import { MalformedError } from '#protocol/errors'
import { Content } from './gen/content_pb.ts'
import { Images } from './gen/images_pb.ts'
import type { GrpcClient } from './grpc.ts'

export interface HostImageConfig {
  readonly env: readonly string[]
  readonly entrypoint: readonly string[]
  readonly cmd: readonly string[]
  readonly user: string
  readonly workingDir: string
  /** Of its highest layer, by which containerd knows the layers below as well; empty without layers. */
  readonly chainId: string
}

const MAX_DOCUMENT_BYTES = 4 * 1024 * 1024
const TIMEOUT_MS = 30_000

/** @throws ServiceError of grpc-js when containerd has no such image; MalformedError ERR_HOST_IMAGE */
export async function readImageConfig(
  containerd: GrpcClient,
  namespace: string,
  image: string,
): Promise<HostImageConfig> {
  const options = { timeoutMs: TIMEOUT_MS, metadata: { 'containerd-namespace': namespace } }
  const { image: found } = await containerd.unary(Images.method.get, { name: image }, options)
  const read = async (digest: string): Promise<unknown> => {
    if (digest === '') throw malformed('a document is not named')
    const chunks: Uint8Array[] = []
    let total = 0
    for await (const { data } of containerd.serverStream(Content.method.read, { digest }, options)) {
      total += data.byteLength
      if (total > MAX_DOCUMENT_BYTES) throw malformed(`${digest} is larger than ${MAX_DOCUMENT_BYTES} bytes`)
      chunks.push(data)
    }
    try {
      return JSON.parse(Buffer.concat(chunks).toString('utf8'))
    } catch (cause) {
      throw malformed(`${digest} is not JSON`, cause)
    }
  }
  let document = await read(found?.target?.digest ?? '')
  const manifests = listOf(document, 'manifests')
  if (manifests.length > 0) document = await read(linuxManifest(manifests))
  return parseHostImageConfig(await read(text(member(document, 'config'), 'digest')))
}

/**
 * All names under which containerd knows the bytes that `image` names, that one first. Its CRI plugin keeps images by
 * their bytes and hands on any of their names, so the one of the pod may be another.
 */
export async function sameImages(containerd: GrpcClient, namespace: string, image: string): Promise<readonly string[]> {
  const options = { timeoutMs: TIMEOUT_MS, metadata: { 'containerd-namespace': namespace } }
  const { images } = await containerd.unary(Images.method.list, {}, options)
  const digest = images.find(({ name }) => name === image)?.target?.digest
  const same = images.filter(({ name, target }) => target?.digest === digest && !name.startsWith('sha256:'))
  return [...new Set([image, ...same.map(({ name }) => name)])]
}

/** An image configuration (OCI image-spec config.md), as far as it is compared. @throws MalformedError ERR_HOST_IMAGE */
export function parseHostImageConfig(document: unknown): HostImageConfig {
  const config = member(document, 'config')
  return {
    env: texts(config, 'Env'),
    entrypoint: texts(config, 'Entrypoint'),
    cmd: texts(config, 'Cmd'),
    user: text(config, 'User'),
    workingDir: text(config, 'WorkingDir'),
    chainId: chainIdOf(texts(member(document, 'rootfs'), 'diff_ids')),
  }
}

/** OCI image-spec config.md, "Layer ChainID". */
function chainIdOf([base = '', ...layers]: readonly string[]): string {
  return layers.reduce(
    (chain, layer) => `sha256:${createHash('sha256').update(`${chain} ${layer}`).digest('hex')}`,
    base,
  )
}

/** This machine's architecture: containerd chose the same one. */
function linuxManifest(manifests: readonly unknown[]): string {
  const match = manifests.find((entry) => {
    const platform = member(entry, 'platform')
    return text(platform, 'os') === 'linux' && text(platform, 'architecture') === 'amd64'
  })
  return text(match ?? manifests[0], 'digest')
}

function member(value: unknown, name: string): unknown {
  if (value === undefined || value === null) return undefined
  if (typeof value !== 'object' || Array.isArray(value)) throw malformed(`no object around ${name}`)
  return Object.hasOwn(value, name) ? Reflect.get(value, name) : undefined
}

function text(value: unknown, name: string): string {
  const found = member(value, name) ?? ''
  if (typeof found !== 'string') throw malformed(`${name} is no text`)
  return found
}

function listOf(value: unknown, name: string): readonly unknown[] {
  const found = member(value, name) ?? []
  if (!Array.isArray(found)) throw malformed(`${name} is no list`)
  return found
}

function texts(value: unknown, name: string): readonly string[] {
  return listOf(value, name).map((item) => {
    if (typeof item !== 'string') throw malformed(`${name} holds something other than text`)
    return item
  })
}

function malformed(why: string, cause?: unknown): MalformedError {
  return new MalformedError('ERR_HOST_IMAGE', `containerd's copy of the image is malformed: ${why}`, {
    hint: 'Remove the image from containerd and pull it again',
    ...(cause === undefined ? {} : { cause }),
  })
}
