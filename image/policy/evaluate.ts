/**
 * Judges an image by a signature policy: every requirement of the most specific scope must hold.
 *
 * Runs before a single layer is fetched, and again for every reference, whatever is cached. The digests are of manifests
 * that were fetched and verified; the signatures are claims until one verifies with a key that the policy names.
 */
import type { CryptoProvider } from '#protocol/crypto-provider'
import { CaissonError, DeniedError, UnverifiedError } from '#protocol/errors'
import type { Digest } from '#protocol/oci/digest'
import { formatReference, type ImageReference } from '#protocol/oci/reference'
import type { FoundSignature } from '../signature/found.ts'
import { judgeBundle } from './caisson-bundle.ts'
import type { CaissonThreshold, Requirement, SignaturePolicy } from './policy.ts'
import type { KeyResolver, RequirementContext, RequirementFinding, SignatureEngines } from './requirement.ts'
import { requirementsFor, type StoredPlace } from './scopes.ts'
import { judgeSignedBy } from './signed-by.ts'
import { judgeSigstoreSigned } from './sigstore-signed.ts'
import { mostSigners } from './threshold.ts'

export type { KeyResolver, SignatureEngines } from './requirement.ts'

export interface JudgementInput {
  /** Undefined refuses: an image that nobody judged is not run. */
  readonly policy: SignaturePolicy | undefined
  /** As it was asked for, never the name of a mirror. Undefined for an image in a folder that goes by no name. */
  readonly reference: ImageReference | undefined
  /** Where an image lies that is not in a registry: its scopes decide, unless it is judged under a reference. */
  readonly stored?: StoredPlace
  /**
   * The manifest that would run, and the index it was selected from, if one: a signature over either vouches, since the
   * index names the manifest by digest.
   */
  readonly digests: readonly Digest[]
  readonly signaturesOf: (digest: Digest, kind: FoundSignature['kind']) => Promise<readonly FoundSignature[]>
  readonly resolveKey: KeyResolver
  readonly crypto: CryptoProvider
  /** What judges OpenPGP signatures and sigstore bundles. Without it policies that ask for these refuse. */
  readonly engines?: SignatureEngines | undefined
  /** Default: the clock's. */
  readonly now?: Date
}

export interface Judgement {
  /** Which list of the policy decided: `docker["registry.example/team"]`. */
  readonly place: string
  readonly requirements: readonly string[]
  /** Who signed, for each requirement that asks for signers. */
  readonly signers: readonly string[]
}

/**
 * Throws `DeniedError` ERR_IMAGE_REJECTED, ERR_IMAGE_IDENTITY or ERR_IMAGE_SIGNER, `UnverifiedError` ERR_IMAGE_UNSIGNED,
 * ERR_IMAGE_SIGNATURE, ERR_IMAGE_CERTIFICATE, ERR_IMAGE_LOG_ENTRY, ERR_IMAGE_THRESHOLD or ERR_IMAGE_POLICY_MISSING,
 * and what reading the policy's keys throws.
 */
export async function evaluateSignaturePolicy(input: JudgementInput): Promise<Judgement> {
  const image = nameOf(input)
  if (input.policy === undefined) {
    throw new UnverifiedError('ERR_IMAGE_POLICY_MISSING', `${image}: there is no image policy to judge it by`, {
      hint: 'Store a policy.json at the verifier and name it in the initdata as image_security_policy_uri.',
    })
  }
  const { place, requirements } = requirementsFor(input.policy, placeOf(input))
  const signers = new Set<string>()
  for (const [index, requirement] of requirements.entries()) {
    const context = contextOf(input, `${place}[${index}]`)
    for (const signer of await requireOne(requirement, context)) signers.add(signer)
  }
  return { place, requirements: requirements.map(({ type }) => type), signers: [...signers] }
}

/** A signature that one container's rule demands, whatever the policy of all images says. */
export interface RequiredSignature {
  /** For messages: `containers.web.signedBy`. */
  readonly place: string
  /** Any one of them, tried in this order; each with its own place: `containers.web.signedBy[2]`. */
  readonly anyOf: readonly { readonly place: string; readonly requirement: SignerRequirement }[]
}

/**
 * Who signed. A requirement that cannot be judged, since its key cannot be had or read, is one that does not hold; where none
 * holds it is what is told, because with the key the verdict might be another one.
 *
 * Throws as `evaluateSignaturePolicy` does for requirements that ask for signers.
 */
export async function requireSignature(
  { place, anyOf }: RequiredSignature,
  input: Omit<JudgementInput, 'policy'>,
): Promise<readonly string[]> {
  const asked = { ...input, signaturesOf: askedOnce(input.signaturesOf) }
  const [problems, failures]: [CaissonError[], CaissonError[]] = [[], []]
  for (const { place: own, requirement } of anyOf) {
    try {
      const finding = await judgeSigners(requirement, contextOf(asked, own))
      if (finding.signers.length > 0) return finding.signers
      failures.push(...finding.failures)
    } catch (error) {
      if (!(error instanceof CaissonError)) throw error
      problems.push(error)
    }
  }
  throw problems[0] ?? nearest(failures) ?? unsigned(contextOf(asked, place))
}

/** What was found, or could not be, for each of several requirements of the same kind. */
function askedOnce(signaturesOf: JudgementInput['signaturesOf']): JudgementInput['signaturesOf'] {
  const answers = new Map<string, ReturnType<JudgementInput['signaturesOf']>>()
  return (digest, kind) => {
    const name = `${kind} ${digest}`
    const answer = answers.get(name) ?? signaturesOf(digest, kind)
    answers.set(name, answer)
    return answer
  }
}

function contextOf(input: Omit<JudgementInput, 'policy'>, place: string): RequirementContext {
  return {
    image: nameOf(input),
    reference: input.reference,
    digests: input.digests,
    signaturesOf: input.signaturesOf,
    resolveKey: input.resolveKey,
    crypto: input.crypto,
    engines: input.engines,
    now: input.now ?? new Date(),
    place,
  }
}

/** The signers it found. */
async function requireOne(requirement: Requirement, context: RequirementContext): Promise<readonly string[]> {
  switch (requirement.type) {
    case 'insecureAcceptAnything':
      return []
    case 'reject':
      throw new DeniedError('ERR_IMAGE_REJECTED', `${context.image}: rejected by the image policy, ${context.place}`, {
        field: context.place,
        allowed: 'nothing',
        asked: context.image,
        hint: 'Add a scope for this repository to policy.json if the image is to be admitted.',
      })
    case 'signedBaseLayer':
      throw new UnverifiedError(
        'ERR_IMAGE_POLICY_UNSUPPORTED',
        `${context.image}: ${context.place}: signedBaseLayer is reserved, and admits no image`,
        { hint: 'Use signedBy or sigstoreSigned.' },
      )
    case 'caissonThreshold':
      return await requireThreshold(requirement, context)
    case 'signedBy':
    case 'sigstoreSigned':
    case 'caissonBundle':
      return requireSigners(await judgeSigners(requirement, context), context)
    default:
      return requirement satisfies never
  }
}

export type SignerRequirement = CaissonThreshold['of'][number]

function judgeSigners(requirement: SignerRequirement, context: RequirementContext): Promise<RequirementFinding> {
  switch (requirement.type) {
    case 'signedBy':
      return judgeSignedBy(requirement, context)
    case 'sigstoreSigned':
      return judgeSigstoreSigned(requirement, context)
    case 'caissonBundle':
      return judgeBundle(requirement, context)
    default:
      return requirement satisfies never
  }
}

function requireSigners({ signers, failures }: RequirementFinding, context: RequirementContext): readonly string[] {
  if (signers.length > 0) return signers
  throw nearest(failures) ?? unsigned(context)
}

/** Distinct signers count: one who satisfies two requirements is still one. */
async function requireThreshold(
  { count, of }: CaissonThreshold,
  context: RequirementContext,
): Promise<readonly string[]> {
  const findings: RequirementFinding[] = []
  for (const [index, requirement] of of.entries()) {
    findings.push(await judgeSigners(requirement, { ...context, place: `${context.place}.of[${index}]` }))
  }
  const signers = mostSigners(findings.map((finding) => finding.signers))
  if (signers.length >= count) return signers
  const failures = findings.flatMap((finding) => finding.failures)
  const why = nearest(failures)
  throw new UnverifiedError(
    'ERR_IMAGE_THRESHOLD',
    `${context.image}: ${context.place} demands ${count} of ${of.length} signers, found ${signers.length}${signers.length === 0 ? '' : `: ${signers.join(', ')}`}`,
    {
      hint: 'Let the others sign this digest as well.',
      ...(why === undefined ? {} : { cause: why }),
    },
  )
}

/** A signature that verified but says another name is nearer to acceptance than one that did not verify at all. */
function nearest(failures: readonly CaissonError[]): CaissonError | undefined {
  return failures.find((failure) => failure instanceof DeniedError) ?? failures[0]
}

function unsigned({ image, place }: RequirementContext): UnverifiedError {
  return new UnverifiedError('ERR_IMAGE_UNSIGNED', `${image}: has no signature, and ${place} demands one`, {
    hint: 'Sign it: caisson image sign --key KEY REFERENCE.',
  })
}

function placeOf({ reference, stored }: JudgementInput): ImageReference | StoredPlace {
  const place = reference ?? stored
  if (place === undefined) throw new TypeError('an image is judged under a reference or where it lies')
  return place
}

function nameOf({ reference, stored }: Pick<JudgementInput, 'reference' | 'stored'>): string {
  return reference === undefined ? `${stored?.transport}:${stored?.path}` : formatReference(reference)
}
