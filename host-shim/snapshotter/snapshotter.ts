/**
 * containerd's snapshots service (a proxy plugin). For images that guests pull, every layer is said to exist before it is
 * fetched, and containerd fetches none; for all others this is an overlay snapshotter like containerd's own.
 */
import { mkdir, readdir, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { MessageInitShape } from '@bufbuild/protobuf'
import type { GenService, GenServiceMethods } from '@bufbuild/protobuf/codegenv2'
import { timestampFromMs } from '@bufbuild/protobuf/wkt'
import { status as GrpcStatus } from '@grpc/grpc-js'
import { type InfoSchema, Kind, type Snapshots } from '../containerd/gen/snapshots_pb.ts'
import { type GrpcServiceImpl, GrpcStatusError } from '../containerd/grpc.ts'
import { diskUsage } from './disk-usage.ts'
import { isGuestImage, type ReferencePattern } from './guest-references.ts'
import { contentOf, type Mount, mountsOf } from './mounts.ts'
import type { Snapshot, SnapshotStore } from './store.ts'

type MethodsOf<Service> = Service extends GenService<infer Methods extends GenServiceMethods> ? Methods : never
export type SnapshotService = GrpcServiceImpl<MethodsOf<typeof Snapshots>>

/** Chain id of the layer that an unpacking prepares; absent on a container's own layer. */
const TARGET = 'containerd.io/snapshot.ref'
const IMAGE_REFERENCE = 'containerd.io/snapshot/cri.image-ref'
const LABEL_PREFIX = 'labels.'

export interface RootRequest {
  readonly directory: string
  readonly namespace: string
  readonly chainId: string
}

/** Who a root is mounted for: containerd's name of the container. */
export interface RootUser {
  readonly namespace: string
  readonly container: string
}

export interface SnapshotterOptions {
  readonly store: SnapshotStore
  readonly guestImages: readonly ReferencePattern[]
  /** Whether all images of these layers are guests'. */
  readonly isGuestsOnly: (root: Pick<RootRequest, 'namespace' | 'chainId'>) => Promise<boolean>
  /**
   * Puts into the root of a container whose layers only guests fetch what containerd looks up there.
   *
   * @param root its directory, containerd's namespace, and the chain id of the layer that it lies on
   * @throws Error when that layer is not the highest of any image of guests
   */
  readonly fillRoot: (root: RootRequest) => Promise<void>
  /** @throws Error when the layers that only guests fetch are to be the root of a container that no guest runs */
  readonly checkRuntime: (user: RootUser) => Promise<void>
}

export function snapshotService(options: SnapshotterOptions): SnapshotService {
  const { store, guestImages, isGuestsOnly, fillRoot, checkRuntime } = options
  const { directory } = store
  const get = (name: string): Snapshot => {
    const found = store.find(name)
    if (found === undefined) throw failure('NOT_FOUND', `snapshot ${name}: not found`)
    return found
  }

  const make = async (
    kind: Kind,
    request: { readonly key: string; readonly parent: string; readonly labels: Readonly<Record<string, string>> },
    namespace: string,
  ): Promise<{ mounts: Mount[] }> => {
    const { key, parent, labels } = request
    if (parent !== '' && get(parent).kind !== Kind.COMMITTED) {
      throw failure('INVALID_ARGUMENT', `parent ${parent} is not committed`)
    }
    const parents = parent === '' ? [] : [get(parent), ...store.ancestors(get(parent))]
    const target = labels[TARGET]
    const image = labels[IMAGE_REFERENCE]
    if (target !== undefined && image !== undefined && isGuestImage(image, guestImages)) {
      skipLayer(store, { parent, labels, target })
      throw failure('ALREADY_EXISTS', `snapshot ${target}: already exists`)
    }
    const unfetched = parents.some(({ skipped }) => skipped)
    // An unpacking on top of what was never fetched would make an image with holes: of another name that shares layers
    // with a guest's, or of a guest's image that containerd unpacks again without telling its name.
    if (unfetched && key.includes('extract-')) {
      throw failure(
        'FAILED_PRECONDITION',
        `layer ${target ?? key} lies on layers that only guests fetch: remove the images that share it, or pull it for guests as well`,
      )
    }
    const [top] = parents
    const chainId = top === undefined ? '' : (top.labels[TARGET] ?? ownName(top.name))
    const isRoot = kind === Kind.ACTIVE && top !== undefined && target === undefined && !key.includes('extract-')
    const placeholder = unfetched || (isRoot && (await isGuestsOnly({ namespace, chainId })))
    const snapshot = store.insert({ name: key, parent, kind, skipped: placeholder, labels })
    if (snapshot === undefined) throw failure('ALREADY_EXISTS', `snapshot ${key}: already exists`)
    const content = contentOf(directory, snapshot)
    try {
      await mkdir(content, { recursive: true, mode: 0o755 })
      if (kind === Kind.ACTIVE) await mkdir(join(content, '..', 'work'), { mode: 0o711 })
      if (placeholder) await fillRoot({ directory: content, namespace, chainId })
    } catch (error) {
      store.remove(snapshot.id)
      await discard(directory, snapshot)
      throw error
    }
    return { mounts: [...mountsOf(directory, snapshot, parents)] }
  }

  return {
    prepare: (request, { metadata }) => make(Kind.ACTIVE, request, namespaceOf(metadata)),
    view: (request, { metadata }) => make(Kind.VIEW, request, namespaceOf(metadata)),

    mounts: async ({ key }, { metadata }) => {
      const snapshot = get(key)
      const layers = store.ancestors(snapshot)
      const namespace = namespaceOf(metadata)
      if (snapshot.skipped) await checkRuntime({ namespace, container: ownName(key) })
      return { mounts: [...mountsOf(directory, snapshot, layers)] }
    },

    commit: async ({ name, key, labels }) => {
      const snapshot = get(key)
      if (snapshot.kind !== Kind.ACTIVE) throw failure('FAILED_PRECONDITION', `snapshot ${key} is not active`)
      if (store.find(name) !== undefined) throw failure('ALREADY_EXISTS', `snapshot ${name}: already exists`)
      store.change(snapshot.id, { name, kind: Kind.COMMITTED, labels: { ...snapshot.labels, ...labels } })
      return {}
    },

    remove: async ({ key }) => {
      const snapshot = get(key)
      if (store.hasChildren(key)) throw failure('FAILED_PRECONDITION', `snapshot ${key} has children`)
      store.remove(snapshot.id)
      await discard(directory, snapshot)
      return {}
    },

    stat: async ({ key }) => ({ info: infoOf(get(key)) }),

    update: async ({ info, updateMask }) => {
      const snapshot = get(info?.name ?? '')
      store.change(snapshot.id, { labels: changedLabels(snapshot.labels, info?.labels ?? {}, updateMask?.paths ?? []) })
      return { info: infoOf(get(snapshot.name)) }
    },

    // containerd checks the filters itself.
    async *list() {
      for (const snapshot of store.all()) yield { info: [infoOf(snapshot)] }
    },

    usage: async ({ key }) => {
      const snapshot = get(key)
      const isUnfetched = snapshot.skipped && snapshot.kind === Kind.COMMITTED
      return isUnfetched ? { size: 0n, inodes: 0n } : diskUsage(contentOf(directory, snapshot))
    },

    /** Directories of snapshots that are gone: left by a crash between the two removals. */
    cleanup: async () => {
      const known = new Set(store.all().map(({ id }) => String(id)))
      for (const name of await readdir(join(directory, 'snapshots'))) {
        if (!known.has(name)) await rm(join(directory, 'snapshots', name), { recursive: true, force: true })
      }
      return {}
    },
  }
}

/** Recorded as committed, under a name of our own: containerd finds it by its label and its parent. */
function skipLayer(
  store: SnapshotStore,
  layer: { readonly parent: string; readonly labels: Readonly<Record<string, string>>; readonly target: string },
): void {
  const { parent, labels, target } = layer
  const name = `guest/${parent === '' ? 'base' : (store.find(parent)?.id ?? 0)}/${target}`
  store.insert({ name, parent, kind: Kind.COMMITTED, skipped: true, labels })
}

async function discard(directory: string, snapshot: Snapshot): Promise<void> {
  const path = join(directory, 'snapshots', String(snapshot.id))
  // Renamed first: a removal that is cut short leaves nothing that looks like a snapshot.
  const doomed = join(directory, 'snapshots', `.removed-${snapshot.id}`)
  await rename(path, doomed).catch(() => undefined)
  await rm(doomed, { recursive: true, force: true })
}

/** Without a mask all labels are replaced (containerd's snapshots.proto, UpdateSnapshotRequest). */
function changedLabels(
  before: Readonly<Record<string, string>>,
  asked: Readonly<Record<string, string>>,
  paths: readonly string[],
): Readonly<Record<string, string>> {
  if (paths.length === 0 || paths.includes('labels')) return asked
  const labels = { ...before }
  for (const path of paths) {
    if (!path.startsWith(LABEL_PREFIX)) throw failure('INVALID_ARGUMENT', `cannot change ${path}`)
    const name = path.slice(LABEL_PREFIX.length)
    const value = asked[name]
    if (value === undefined) delete labels[name]
    else labels[name] = value
  }
  return labels
}

function infoOf(snapshot: Snapshot): MessageInitShape<typeof InfoSchema> {
  const { name, parent, kind, labels, createdAtMs, updatedAtMs } = snapshot
  const createdAt = timestampFromMs(createdAtMs)
  return { name, parent, kind, labels: { ...labels }, createdAt, updatedAt: timestampFromMs(updatedAtMs) }
}

/** containerd puts its namespace and a number before the name that a client chose, and its CRI plugin names roots after containers. */
function ownName(key: string): string {
  return key.slice(key.lastIndexOf('/') + 1)
}

function namespaceOf(metadata: { get(name: string): readonly (string | Buffer)[] }): string {
  return String(metadata.get('containerd-namespace')[0] ?? 'default')
}

export function failure(
  code: 'NOT_FOUND' | 'ALREADY_EXISTS' | 'INVALID_ARGUMENT' | 'FAILED_PRECONDITION',
  text: string,
): Error {
  return new GrpcStatusError(GrpcStatus[code], text)
}
