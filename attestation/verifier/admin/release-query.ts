/** A release condition in the query of a request: as administrators send it, and as the verifier reads it. */
import { parseReleaseCondition, type ReleaseCondition } from '../../store/release-condition.ts'

/** `release=attested|images&image=sha256:…&reference=ID&require=CEL` */
export function releaseQuery(release: ReleaseCondition): URLSearchParams {
  const query = new URLSearchParams({ release: release.kind })
  for (const manifest of release.kind === 'images' ? release.manifests : []) query.append('image', manifest)
  for (const reference of release.references ?? []) query.append('reference', reference)
  if (release.require !== undefined) query.set('require', release.require)
  return query
}

/** Without `release`: "attested". Throws as `parseReleaseCondition`. */
export function releaseOf(query: URLSearchParams): ReleaseCondition {
  const require = query.get('require')
  return parseReleaseCondition(query.get('release') ?? 'attested', query.getAll('image'), {
    references: query.getAll('reference'),
    ...(require === null ? {} : { require }),
  })
}
