/** Whether an attestation token's claims meet the release condition of a resource. */
import type { JWTPayload } from 'jose'
import { DeniedError } from '#protocol/errors'
import type { Condition } from '../appraisal/condition.ts'
import type { Claims } from '../evidence/verdict.ts'
import { RELEASE_LANGUAGE, type ReleaseCondition } from '../store/release-condition.ts'

/**
 * Decides for claims that were verified before.
 *
 * @throws DeniedError ERR_RELEASE_NOT_AFFIRMING, ERR_RELEASE_IMAGES, ERR_RELEASE_REFERENCE, ERR_RELEASE_CLAIMS
 */
export function checkRelease(condition: ReleaseCondition, claims: JWTPayload): void {
  checkStatus(claims)
  if (condition.kind === 'images') checkImages(condition.manifests, claims)
  if (condition.references !== undefined) checkReference(condition.references, claims)
  if (condition.require !== undefined) checkClaims(condition.require, claims)
}

function checkStatus(claims: JWTPayload): void {
  const status = member(cpu(claims), 'ear.status')
  if (status === 'affirming') return
  throw new DeniedError('ERR_RELEASE_NOT_AFFIRMING', 'the attestation result is not affirming', {
    field: 'ear.status',
    allowed: 'affirming',
    asked: JSON.stringify(status),
    hint: 'See `caisson verifier explain` for the claims that are not.',
  })
}

function checkImages(manifests: readonly string[], claims: JWTPayload): void {
  const found = imageManifests(claims)
  if (manifests.some((manifest) => found.includes(manifest))) return
  throw new DeniedError('ERR_RELEASE_IMAGES', 'the resource is kept for images that this token does not name', {
    field: 'caisson.images',
    allowed: manifests.join(', '),
    asked: found.length === 0 ? 'a token without images' : found.join(', '),
    hint: 'The guest must attest again after it admitted the image; or change the condition of the resource.',
  })
}

function checkReference(references: readonly string[], claims: JWTPayload): void {
  const found = claims['caisson.reference']
  if (typeof found === 'string' && references.includes(found)) return
  throw new DeniedError('ERR_RELEASE_REFERENCE', 'the resource is kept for guests of other reference values', {
    field: 'caisson.reference',
    allowed: references.join(', '),
    asked: typeof found === 'string' ? found : 'a guest that the policy lists',
    hint: 'Start the guest that the resource is for; or change the condition of the resource.',
  })
}

function checkClaims(expression: string, claims: JWTPayload): void {
  const result = compiled(expression)(releaseVariables(claims))
  if ('answer' in result && result.answer) return
  throw new DeniedError('ERR_RELEASE_CLAIMS', 'the token’s claims do not meet the condition of the resource', {
    field: 'claims',
    allowed: expression,
    asked: 'problem' in result ? result.problem : 'false',
    hint: 'Compare it with the claims of the attestation; or change the condition of the resource.',
  })
}

/** Conditions are few and asked often. */
const MAX_KEPT = 256
const kept = new Map<string, Condition['holds']>()

function compiled(expression: string): Condition['holds'] {
  const known = kept.get(expression)
  if (known !== undefined) return known
  const holds = RELEASE_LANGUAGE.compile(expression)
  const [oldest] = kept.keys()
  if (kept.size >= MAX_KEPT && oldest !== undefined) kept.delete(oldest)
  kept.set(expression, holds)
  return holds
}

/** What is absent from the token is absent here: a condition that names it then refuses. */
function releaseVariables(claims: JWTPayload): Claims {
  const evidence = member(cpu(claims), 'ear.veraison.annotated-evidence')
  const tee = Object.keys(typeof evidence === 'object' && evidence !== null ? evidence : {}).find(
    (name) => !SHARED_EVIDENCE.has(name),
  )
  const variables = {
    claims,
    tee,
    evidence: tee === undefined ? undefined : member(evidence, tee),
    trust: member(cpu(claims), 'ear.trustworthiness-vector'),
    reference: claims['caisson.reference'],
    policy: claims['caisson.policy'],
    initdata: member(evidence, 'init_data'),
    documents: member(evidence, 'init_data_claims'),
    images: claims['caisson.images'] ?? [],
  }
  const present = Object.fromEntries(Object.entries(variables).filter(([, value]) => value !== undefined))
  return present as Claims // JSON, as it was signed
}

const SHARED_EVIDENCE: ReadonlySet<string> = new Set([
  'report_data',
  'runtime_data_claims',
  'init_data',
  'init_data_claims',
])

function cpu(claims: JWTPayload): unknown {
  return member(member(claims, 'submods'), 'cpu0')
}

function imageManifests(claims: JWTPayload): readonly string[] {
  const images = claims['caisson.images']
  if (!Array.isArray(images)) return []
  return images.map((image: unknown) => member(image, 'manifest')).filter((manifest) => typeof manifest === 'string')
}

function member(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null && Object.hasOwn(value, name)
    ? Object.getOwnPropertyDescriptor(value, name)?.value
    : undefined
}
