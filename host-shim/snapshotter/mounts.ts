/** Snapshots as mounts of overlayfs, which containerd makes itself. */
import { join } from 'node:path'
import type { MessageInitShape } from '@bufbuild/protobuf'
import { Kind } from '../containerd/gen/snapshots_pb.ts'
import type { MountSchema } from '../containerd/gen/types_pb.ts'
import type { Snapshot } from './store.ts'

export type Mount = MessageInitShape<typeof MountSchema>

export function contentOf(directory: string, snapshot: Snapshot): string {
  return join(directory, 'snapshots', String(snapshot.id), 'fs')
}

/**
 * @param layers from the snapshot's parent to the lowest; those that were skipped have no content and are left out, and a
 *   root whose layers only guests use is one without, so
 *   that a container of skipped layers alone is an empty directory
 */
export function mountsOf(directory: string, snapshot: Snapshot, layers: readonly Snapshot[]): readonly Mount[] {
  const lower = snapshot.skipped
    ? []
    : layers.filter(({ skipped }) => !skipped).map((layer) => contentOf(directory, layer))
  const own = contentOf(directory, snapshot)
  const writable = snapshot.kind === Kind.ACTIVE
  const bind = (source: string): readonly Mount[] => [
    { type: 'bind', source, options: ['rbind', writable ? 'rw' : 'ro'] },
  ]
  if (lower.length === 0) return bind(own)
  if (!writable && lower.length === 1) return bind(lower[0] ?? own)
  const options = writable
    ? ['index=off', `workdir=${join(own, '..', 'work')}`, `upperdir=${own}`, `lowerdir=${lower.join(':')}`]
    : ['index=off', `lowerdir=${lower.join(':')}`]
  return [{ type: 'overlay', source: 'overlay', options }]
}
