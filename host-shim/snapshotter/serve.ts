/** The snapshotter on its socket, beside the daemon of the node. */
import { chmod, mkdir, rm } from 'node:fs/promises'
import { dirname } from 'node:path'
import { Server, ServerCredentials } from '@grpc/grpc-js'
import { Images } from '../containerd/gen/images_pb.ts'
import { Snapshots } from '../containerd/gen/snapshots_pb.ts'
import { GrpcClient, grpcService } from '../containerd/grpc.ts'
import { readImageConfig } from '../containerd/image-config.ts'
import { checkPatterns, isGuestImage, type ReferencePattern } from './guest-references.ts'
import { fillPlaceholderRoot } from './placeholder-root.ts'
import { snapshotService } from './snapshotter.ts'
import { SnapshotStore } from './store.ts'

export interface SnapshotterConfig {
  /** Where containerd connects (`proxy_plugins`). */
  readonly socket: string
  /** Snapshots and their records. Not on tmpfs: images of other runtimes are unpacked here. */
  readonly directory: string
  /** containerd's own socket. */
  readonly containerd: string
  readonly guestImages: readonly ReferencePattern[]
}

const LIST_TIMEOUT_MS = 30_000

/** @throws UsageError ERR_GUEST_IMAGES */
export async function serveSnapshotter(config: SnapshotterConfig): Promise<AsyncDisposable> {
  checkPatterns(config.guestImages)
  await mkdir(dirname(config.socket), { recursive: true, mode: 0o700 })
  const store = new SnapshotStore(config.directory)
  const containerd = new GrpcClient(config.containerd)
  const users = new Map<string, string>()
  const fillRoot = async (directory: string, namespace: string): Promise<void> => {
    const options = { timeoutMs: LIST_TIMEOUT_MS, metadata: { 'containerd-namespace': namespace } }
    const { images } = await containerd.unary(Images.method.list, {}, options)
    const found: string[] = []
    for (const { name, target } of images) {
      if (!isGuestImage(name, config.guestImages)) continue
      const digest = target?.digest ?? ''
      const user = users.get(digest) ?? (await readImageConfig(containerd, namespace, name)).user
      users.set(digest, user)
      found.push(user)
    }
    await fillPlaceholderRoot(directory, found)
  }
  const server = new Server({ 'grpc.max_receive_message_length': 16 * 1024 * 1024 })
  server.addService(...grpcService(Snapshots, snapshotService({ store, guestImages: config.guestImages, fillRoot })))
  await rm(config.socket, { force: true })
  await new Promise<void>((resolve, reject) => {
    server.bindAsync(`unix://${config.socket}`, ServerCredentials.createInsecure(), (error) => {
      if (error === null) resolve()
      else reject(error)
    })
  })
  await chmod(config.socket, 0o600)
  return {
    async [Symbol.asyncDispose]() {
      server.forceShutdown()
      containerd[Symbol.dispose]()
      store[Symbol.dispose]()
    },
  }
}
