/**
 * `caissonBundle`, an extension: a sigstore bundle, found as a referrer, whose statement names the image's digest. By
 * default the statement that cosign 3 signs images with; other predicate types make it an attestation, of which SLSA
 * provenance may be held to builders and sources.
 */
import { DeniedError, UnavailableError } from '#protocol/errors'
import type { VerifiedBundle } from '../signature/bundle.ts'
import { keyName, parseSigningKey } from '../signature/public-key.ts'
import { isSource, provenanceOf, type Statement } from '../signature/statement.ts'
import type { CaissonBundle, CertificateIdentity } from './policy.ts'
import {
  judgeEach,
  type RequirementContext,
  type RequirementFinding,
  readAllConfigured,
  readConfigured,
} from './requirement.ts'

export async function judgeBundle(
  requirement: CaissonBundle,
  context: RequirementContext,
): Promise<RequirementFinding> {
  const { engines, place, crypto } = context
  if (engines === undefined) {
    throw new UnavailableError('ERR_IMAGE_POLICY_UNSUPPORTED', `${place}: sigstore bundles are not available here`, {
      hint: 'Use sigstoreSigned with keys.',
    })
  }
  const { keys: configured, trustedRoot } = requirement
  const pems = await readAllConfigured(configured, context)
  const keys = pems.map((pem, index) => parseSigningKey(pem, `${place}.key ${index + 1}`))
  const root = trustedRoot === undefined ? undefined : await readConfigured(trustedRoot, context)
  const bundles = await engines.bundles()
  const trust = bundles.readTrust({ keys, trustedRoot: root }, `${place}.trustedRoot`)
  return await judgeEach(context, 'bundle', ({ json, source }, digest) => {
    const bundle = bundles.verify(json, trust, { kind: 'digest', digest }, { crypto, what: source })
    const signer = signerOf(bundle, requirement.identities, context)
    requireStatement(bundle.statement, requirement, context)
    return signer
  })
}

/** Throws `DeniedError` ERR_IMAGE_SIGNER for a certificate that none of the identities names. */
function signerOf(
  { signer }: VerifiedBundle,
  identities: readonly CertificateIdentity[],
  { image, place, crypto }: RequirementContext,
): string {
  if (signer.kind === 'key') return keyName(crypto, signer.key)
  const { issuer, subjects } = signer
  const subject = subjects.find((name) =>
    identities.some((wanted) => {
      const { subject: exact, subjectPrefix = '' } = wanted
      return wanted.issuer === issuer && (exact === undefined ? name.startsWith(subjectPrefix) : name === exact)
    }),
  )
  if (subject !== undefined) return `${subject} of ${issuer}`
  throw denied(`${image}: a bundle is signed by another identity than ${place} names`, {
    field: `${place}.identities`,
    allowed: identities
      .map((wanted) => `${wanted.subject ?? `${wanted.subjectPrefix}…`} of ${wanted.issuer}`)
      .join(', '),
    asked: `${subjects.join(', ')} of ${issuer}`,
  })
}

/** Throws `DeniedError` ERR_IMAGE_ATTESTATION. */
function requireStatement(
  statement: Statement | undefined,
  { predicateTypes, builders, sources }: CaissonBundle,
  { image, place }: RequirementContext,
): void {
  if (statement === undefined) throw new TypeError('a bundle about a digest has a statement')
  const require = (
    name: string,
    wanted: readonly string[],
    found: readonly string[],
    fits: (value: string) => boolean,
  ) => {
    if (wanted.length === 0 || found.some(fits)) return
    throw new DeniedError(
      'ERR_IMAGE_ATTESTATION',
      `${image}: an attestation says ${name} ${JSON.stringify(found.join(', ').slice(0, 300))}, ${place} allows ${JSON.stringify(wanted.join(', '))}`,
      {
        field: `${place}.${name}`,
        allowed: wanted.join(', '),
        asked: found.join(', '),
        hint: 'Attest the image from the builder and the source that the policy names.',
      },
    )
  }
  require('predicateTypes', predicateTypes, [statement.predicateType], (type) => predicateTypes.includes(type))
  const { builder, sources: found } = provenanceOf(statement)
  require('builders', builders, builder === undefined ? [] : [builder], (value) => builders.includes(value))
  require('sources', sources, found, (value) => sources.some((wanted) => isSource(value, wanted)))
}

function denied(message: string, what: { field: string; allowed: string; asked: string }): DeniedError {
  return new DeniedError('ERR_IMAGE_SIGNER', `${message}: ${what.asked}`, {
    ...what,
    hint: 'Sign with an identity of the policy, or name this one in it.',
  })
}
