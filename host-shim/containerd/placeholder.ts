/**
 * The image that a pod names when its real one is sealed: containerd wants some image for every container. It is empty, the
 * same on every node, and of no registry. `caisson node install` imports it, and the node's daemon keeps it in containerd,
 * since a kubelet removes images that it thinks nobody needs.
 */
import { createHash } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { errorText } from '#protocol/errors'
import { Content, WriteAction } from './gen/content_pb.ts'
import { Images } from './gen/images_pb.ts'
import { GrpcClient } from './grpc.ts'

export const PLACEHOLDER_IMAGE = 'caisson.dev/sealed:1'
const NAMESPACE = 'k8s.io'
/** Where containerd's CRI plugin looks. */
const OPTIONS = { timeoutMs: 30_000, metadata: { 'containerd-namespace': NAMESPACE } }
const NOT_FOUND = 5
const ALREADY_EXISTS = 6
const ABSENT_MS = 2000
const PRESENT_MS = 60_000

interface Blob {
  readonly bytes: Uint8Array
  readonly digest: string
  readonly labels: Readonly<Record<string, string>>
}

function blobOf(bytes: Uint8Array, labels: Blob['labels'] = {}): Blob {
  return { bytes, digest: `sha256:${createHash('sha256').update(bytes).digest('hex')}`, labels }
}

/** Blobs of the image, its manifest last. */
export function placeholderBlobs(): readonly [layer: Blob, config: Blob, manifest: Blob] {
  // An empty tar: two blocks of zeros (POSIX.1, pax).
  const layer = blobOf(new Uint8Array(1024))
  const json = (value: object): Uint8Array => Buffer.from(JSON.stringify(value))
  const config = blobOf(
    json({
      architecture: 'amd64',
      os: 'linux',
      // containerd makes no container without a command; the guest runs that of the real image.
      config: { Entrypoint: ['/sealed'] },
      rootfs: { type: 'layers', diff_ids: [layer.digest] },
    }),
  )
  const manifest = json({
    schemaVersion: 2,
    mediaType: 'application/vnd.oci.image.manifest.v1+json',
    config: descriptor('application/vnd.oci.image.config.v1+json', config),
    layers: [descriptor('application/vnd.oci.image.layer.v1.tar', layer)],
  })
  const labels = {
    'containerd.io/gc.ref.content.config': config.digest,
    'containerd.io/gc.ref.content.l.0': layer.digest,
  }
  return [layer, config, blobOf(manifest, labels)]
}

/** Imports the image unless it is there. @throws ServiceError of grpc-js when containerd does not answer */
export async function importPlaceholder(containerd: GrpcClient): Promise<void> {
  const known = await containerd.unary(Images.method.get, { name: PLACEHOLDER_IMAGE }, OPTIONS).catch(unless(NOT_FOUND))
  if (known !== undefined) return
  const blobs = placeholderBlobs()
  for (const blob of blobs) await write(containerd, blob)
  const [, , manifest] = blobs
  const target = {
    mediaType: 'application/vnd.oci.image.manifest.v1+json',
    digest: manifest.digest,
    size: BigInt(manifest.bytes.byteLength),
  }
  await containerd
    .unary(Images.method.create, { image: { name: PLACEHOLDER_IMAGE, target, labels: {} } }, OPTIONS)
    .catch(unless(ALREADY_EXISTS))
}

/** Takes the image back. False when containerd does not answer. */
export async function removePlaceholder(address: string): Promise<boolean> {
  using containerd = new GrpcClient(address)
  return await containerd
    .unary(Images.method.delete, { name: PLACEHOLDER_IMAGE }, OPTIONS)
    .catch(unless(NOT_FOUND))
    .then(
      () => true,
      () => false,
    )
}

/** Until the signal fires. containerd may come later than the daemon, and go and come again. */
export async function keepPlaceholder(
  address: string,
  signal: AbortSignal,
  log: (line: string) => void,
): Promise<void> {
  using containerd = new GrpcClient(address)
  let told = false
  while (!signal.aborted) {
    const problem = await importPlaceholder(containerd).then(
      () => undefined,
      (error: unknown) => errorText(error),
    )
    if (problem !== undefined && !told) log(`containerd has no ${PLACEHOLDER_IMAGE} yet: ${problem}`)
    told = problem !== undefined
    await sleep(problem === undefined ? PRESENT_MS : ABSENT_MS, undefined, { signal, ref: false }).catch(
      () => undefined,
    )
  }
}

async function write(containerd: GrpcClient, { bytes, digest, labels }: Blob): Promise<void> {
  const total = BigInt(bytes.byteLength)
  const request = { action: WriteAction.COMMIT, ref: `caisson-${digest}`, total, expected: digest, data: bytes, labels }
  await containerd.exchange(Content.method.write, request, OPTIONS).catch(unless(ALREADY_EXISTS))
}

function descriptor(mediaType: string, { digest, bytes }: Blob): object {
  return { mediaType, digest, size: bytes.byteLength }
}

function unless(code: number): (error: unknown) => undefined {
  return (error) => {
    if (error instanceof Error && 'code' in error && error.code === code) return undefined
    throw error
  }
}
