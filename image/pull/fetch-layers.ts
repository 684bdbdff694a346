/** The layers of an image, some at a time; what ends the pull of one ends all. */
import type { Digest } from '#protocol/oci/digest'
import type { StoredLayer } from '../layer/store.ts'
import { fetchLayer, type LayerContext, type LayerJob } from './fetch-layer.ts'

/**
 * Largest first, so that the last one running is not the longest. The first error stops the others, and is thrown.
 *
 * @param parallel layers whose bytes come in at a time; as many others may be about to end
 * @param abort the context's signal follows it
 * @returns a layer for each job, equal ones the same object
 */
export async function fetchLayers(
  jobs: readonly LayerJob[],
  parallel: number,
  abort: AbortController,
  context: LayerContext,
): Promise<readonly StoredLayer[]> {
  const queue = [...new Map(jobs.map((job) => [job.diffId, job])).values()]
  queue.sort((a, b) => b.descriptor.size - a.descriptor.size)
  const stored = new Map<Digest, StoredLayer>()
  const begun: Promise<void>[] = []
  const begin = (job: LayerJob): { readonly arrived: Promise<void>; readonly done: Promise<void> } => {
    const { promise: arrived, resolve: onArrived } = Promise.withResolvers<void>()
    const done = fetchLayer(job, context, onArrived).then((layer) => void stored.set(job.diffId, layer))
    done.catch((error: unknown) => abort.abort(error))
    begun.push(done)
    return { arrived, done }
  }
  const work = async (): Promise<void> => {
    let before: Promise<void> = Promise.resolve()
    for (let job = queue.shift(); job !== undefined; job = queue.shift()) {
      const { arrived, done } = begin(job)
      // The next one's first bytes are on their way while this one's last are worked on.
      await Promise.all([before, Promise.race([arrived, done])])
      before = done
    }
  }
  await Promise.allSettled(Array.from({ length: Math.min(parallel, queue.length) }, work))
  // All must have stopped before anyone looks at the store again.
  await Promise.allSettled(begun)
  abort.signal.throwIfAborted()
  return jobs.flatMap(({ diffId }) => stored.get(diffId) ?? [])
}
