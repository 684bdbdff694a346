/**
 * The roots of containers whose layers this machine never fetched. containerd takes a layer that one image has for every
 * image's, so an image that guests do not pull may consist of such layers as well; there is nothing to run it from here.
 */
import { Containers } from '../containerd/gen/containers_pb.ts'
import { Images } from '../containerd/gen/images_pb.ts'
import type { GrpcClient } from '../containerd/grpc.ts'
import { type HostImageConfig, readImageConfig } from '../containerd/image-config.ts'
import { RUNTIME_TYPE } from '../install/node-layout.ts'
import { isGuestImage, type ReferencePattern } from './guest-references.ts'
import { fillPlaceholderRoot } from './placeholder-root.ts'
import { failure, type RootRequest, type RootUser } from './snapshotter.ts'

const LIST_TIMEOUT_MS = 30_000
/** Of gRPC. */
const NOT_FOUND = 5

interface KnownImage {
  readonly name: string
  readonly isGuests: boolean
  readonly user: string
  readonly chainId: string
}

export class GuestRoots {
  readonly #containerd: GrpcClient
  readonly #guestImages: readonly ReferencePattern[]
  /** By digest of the manifest or index. */
  readonly #configs = new Map<string, HostImageConfig>()

  constructor(containerd: GrpcClient, guestImages: readonly ReferencePattern[]) {
    this.#containerd = containerd
    this.#guestImages = guestImages
  }

  /** @throws GrpcStatusError FAILED_PRECONDITION when the layers are a whole image of this machine's and none of guests' */
  async fill({ directory, namespace, chainId }: RootRequest): Promise<void> {
    const images = await this.#list(namespace)
    const ended = images.filter((image) => image.chainId === chainId)
    if (ended.length > 0 && !ended.some(({ isGuests }) => isGuests)) {
      const names = ended.map(({ name }) => name).filter((name) => !name.startsWith('sha256:'))
      throw failure(
        'FAILED_PRECONDITION',
        `this machine has no layer of ${names.join(', ')}: all are layers of images that only guests fetch. Name it as an image of guests too (--guest-image), or remove both images and pull this one first`,
      )
    }
    await fillPlaceholderRoot(
      directory,
      images.flatMap(({ isGuests, user }) => (isGuests ? [user] : [])),
    )
  }

  /**
   * Whether every image with these layers is guests'. They may all the same lie here: pulled before, or under another name
   * that is gone. A container of theirs is a guest's, and containerd shall not look its user up in what the guest does not use.
   */
  async isGuestsOnly({ namespace, chainId }: Pick<RootRequest, 'namespace' | 'chainId'>): Promise<boolean> {
    const images = await this.#list(namespace)
    const ended = images.filter((image) => image.chainId === chainId && !image.name.startsWith('sha256:'))
    return ended.length > 0 && ended.every(({ isGuests }) => isGuests)
  }

  /**
   * containerd mounts a container's root when it starts it, and its record says by then which runtime that is. Before there is
   * a record it looks names up in the root, which harms nobody.
   *
   * @throws GrpcStatusError FAILED_PRECONDITION for a container that no guest runs
   */
  async checkRuntime({ container, namespace }: RootUser): Promise<void> {
    const options = { timeoutMs: LIST_TIMEOUT_MS, metadata: { 'containerd-namespace': namespace } }
    const answer = await this.#containerd
      .unary(Containers.method.get, { id: container }, options)
      .catch((error: unknown) => {
        if (isLost(error)) return undefined
        throw error
      })
    const { image = '', runtime } = answer?.container ?? {}
    if (runtime === undefined || runtime.name === RUNTIME_TYPE) return
    throw failure(
      'FAILED_PRECONDITION',
      `this machine has no layer of ${image}: they are those of an image that only guests fetch, and ${runtime.name} runs none. Give the pod the runtime class of Caisson, or remove both images and pull this one first`,
    )
  }

  async #list(namespace: string): Promise<readonly KnownImage[]> {
    const options = { timeoutMs: LIST_TIMEOUT_MS, metadata: { 'containerd-namespace': namespace } }
    const { images } = await this.#containerd.unary(Images.method.list, {}, options)
    const digests = new Set(images.map(({ target }) => target?.digest ?? ''))
    for (const known of this.#configs.keys()) if (!digests.has(known)) this.#configs.delete(known)
    const found: KnownImage[] = []
    for (const { name, target } of images) {
      const config = await this.#configOf(namespace, name, target?.digest ?? '')
      if (config === undefined) continue
      found.push({
        name,
        isGuests: isGuestImage(name, this.#guestImages),
        user: config.user,
        chainId: config.chainId,
      })
    }
    return found
  }

  /**
   * Undefined for an image whose documents containerd has lost, or has no sense of: it says nothing of the others. Whatever
   * else fails goes on up, since a root without an image's users would be one that only seems whole.
   */
  async #configOf(namespace: string, name: string, digest: string): Promise<HostImageConfig | undefined> {
    const known = this.#configs.get(digest)
    if (known !== undefined) return known
    try {
      const config = await readImageConfig(this.#containerd, namespace, name)
      this.#configs.set(digest, config)
      return config
    } catch (error) {
      if (isLost(error)) return undefined
      throw error
    }
  }
}

function isLost(error: unknown): boolean {
  return error instanceof Error && 'code' in error && (error.code === NOT_FOUND || error.code === 'ERR_HOST_IMAGE')
}
