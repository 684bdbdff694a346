/** The snapshotter on its socket, beside the daemon of the node. */
import { chmod, mkdir, rm } from 'node:fs/promises'
import { dirname } from 'node:path'
import { Server, ServerCredentials } from '@grpc/grpc-js'
import { Snapshots } from '../containerd/gen/snapshots_pb.ts'
import { GrpcClient, grpcService } from '../containerd/grpc.ts'
import { checkPatterns, type ReferencePattern } from './guest-references.ts'
import { GuestRoots } from './guest-roots.ts'
import { type RootRequest, type RootUser, snapshotService } from './snapshotter.ts'
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

/** @throws UsageError ERR_GUEST_IMAGES */
export async function serveSnapshotter(config: SnapshotterConfig): Promise<AsyncDisposable> {
  checkPatterns(config.guestImages)
  await mkdir(dirname(config.socket), { recursive: true, mode: 0o700 })
  const store = new SnapshotStore(config.directory)
  const containerd = new GrpcClient(config.containerd)
  const roots = new GuestRoots(containerd, config.guestImages)
  const isGuestsOnly = (root: Pick<RootRequest, 'namespace' | 'chainId'>): Promise<boolean> => roots.isGuestsOnly(root)
  const checkRuntime = (user: RootUser): Promise<void> => roots.checkRuntime(user)
  const fillRoot = (root: RootRequest): Promise<void> => roots.fill(root)
  const server = new Server({ 'grpc.max_receive_message_length': 16 * 1024 * 1024 })
  server.addService(
    ...grpcService(
      Snapshots,
      snapshotService({ store, guestImages: config.guestImages, isGuestsOnly, fillRoot, checkRuntime }),
    ),
  )
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
