/** Trying one place after the other, each error kept. */
import { CaissonError, DeniedError, errorText, UnavailableError } from '#protocol/errors'
import type { HttpResponse } from '#protocol/http-transport'
import { repositoryName } from '#protocol/oci/reference'
import { discard } from './body.ts'
import type { RegistryPlace } from './registries-conf.ts'

/**
 * The first answer that is neither an absence nor a failure; else the last place's answer or error. The place that
 * `served` the image comes first, and its word about absence is final.
 *
 * A last place that answers keeps its answer, so that absence stays absence. Throws `UnavailableError`
 * ERR_REGISTRY_MIRRORS with what every place said, when the last one failed to answer at all.
 */
export async function firstAnswer(
  places: readonly RegistryPlace[],
  { signal, served }: { readonly signal: AbortSignal | undefined; readonly served: string | undefined },
  ask: (place: RegistryPlace) => Promise<HttpResponse>,
): Promise<HttpResponse> {
  const failures: string[] = []
  let cause: unknown
  const isServed = (place: RegistryPlace): boolean => repositoryName(place.repository) === served
  const ordered = [...places.filter(isServed), ...places.filter((place) => !isServed(place))]
  for (const [index, place] of ordered.entries()) {
    const name = repositoryName(place.repository)
    try {
      const response = await ask(place)
      const settled = response.status < 500 && (response.status !== 404 || isServed(place))
      if (settled || index === ordered.length - 1) return response
      await discard(response)
      failures.push(`${name}: answers ${response.status}`)
    } catch (error) {
      signal?.throwIfAborted()
      if (!(error instanceof CaissonError) || error instanceof DeniedError) throw error
      failures.push(`${name}: ${errorText(error)}`)
      cause = error
    }
  }
  throw new UnavailableError('ERR_REGISTRY_MIRRORS', `no place has it: ${failures.join('; ')}`, {
    cause,
    hint: 'Check the mirrors and locations in registries.conf, each of which is named with its error.',
  })
}
