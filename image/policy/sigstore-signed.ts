/** `sigstoreSigned`: cosign signatures by key, by Fulcio certificate with a log's promise, or by an own authority. */
import { fromBase64 } from '#protocol/encoding'
import { MalformedError, UnverifiedError } from '#protocol/errors'
import type { PresentedCertificate } from '../signature/certificate-signer.ts'
import { readLeaf, requireFulcioIdentity, requirePkiSubject, verifySigner } from '../signature/certificate-signer.ts'
import {
  CERTIFICATE_ANNOTATION,
  CHAIN_ANNOTATION,
  type FoundCosign,
  REKOR_ANNOTATION,
  SIGNATURE_ANNOTATION,
} from '../signature/found.ts'
import { keyName, parseSigningKey, type SigningKey, verifyWithKey } from '../signature/public-key.ts'
import { parseRekorSet, verifyRekorSet } from '../signature/rekor-set.ts'
import { type Certificate, parseCertificate } from '../signature/x509/certificate.ts'
import { parsePemCertificates } from '../signature/x509/pem.ts'
import type { ConfiguredBytes, SigstoreSigned, SigstoreSigner } from './policy.ts'
import {
  judgeEach,
  type RequirementContext,
  type RequirementFinding,
  readAllConfigured,
  readConfigured,
} from './requirement.ts'
import { requirePayload } from './signed-payload.ts'

/** The requirement with its keys and certificates read: whatever is wrong with them is an error, not a verdict. */
type Trust =
  | { readonly kind: 'keys'; readonly keys: readonly SigningKey[] }
  | { readonly kind: 'fulcio'; readonly roots: readonly Certificate[]; readonly signer: Fulcio }
  | {
      readonly kind: 'pki'
      readonly roots: readonly Certificate[]
      readonly intermediates: readonly Certificate[]
      readonly signer: Pki
    }
type Fulcio = Extract<SigstoreSigner, { kind: 'fulcio' }>
type Pki = Extract<SigstoreSigner, { kind: 'pki' }>

interface Signed {
  readonly found: FoundCosign
  readonly signature: Uint8Array
  readonly logs: readonly SigningKey[]
  readonly context: RequirementContext
}

export async function judgeSigstoreSigned(
  requirement: SigstoreSigned,
  context: RequirementContext,
): Promise<RequirementFinding> {
  const trust = await readTrust(requirement.by, context)
  const logs = await readKeys(requirement.rekor, `${context.place}.rekorPublicKey`, context)
  return await judgeEach(context, 'cosign', (found, digest) => {
    const encoded = found.annotations.get(SIGNATURE_ANNOTATION)
    if (encoded === undefined) throw malformed(found.source, `no annotation ${SIGNATURE_ANNOTATION}`)
    const signature = fromBase64(encoded.replaceAll(/[\r\n]/g, ''), found.source)
    const signer = findSigner(trust, { found, signature, logs, context })
    requirePayload(found.payload, 'cosign', { digest, identity: requirement.identity, source: found.source }, context)
    return signer
  })
}

/** Who signed, once the signature and everything that the requirement asks beside it holds. */
function findSigner(trust: Trust, signed: Signed): string {
  switch (trust.kind) {
    case 'keys':
      return signerAmongKeys(trust.keys, signed)
    case 'fulcio':
      return fulcioSigner(trust, signed)
    case 'pki':
      return pkiSigner(trust, signed)
    default:
      return trust satisfies never
  }
}

function signerAmongKeys(keys: readonly SigningKey[], signed: Signed): string {
  const { context, logs } = signed
  const key = keys.find((candidate) => holds(candidate, signed))
  if (key === undefined) {
    const names = keys.map((candidate) => keyName(context.crypto, candidate)).join(', ')
    throw unverified(
      signed,
      `is not by ${keys.length === 1 ? 'the key' : 'a key'} that ${context.place} names: ${names}`,
    )
  }
  if (logs.length > 0) verifyLogged(signed, key.spki)
  return keyName(context.crypto, key)
}

function fulcioSigner(trust: Extract<Trust, { kind: 'fulcio' }>, signed: Signed): string {
  const { found, context } = signed
  const presented = presentedCertificate(found)
  const what = `certificate of ${found.source}`
  const leaf = readLeaf(presented, what)
  // The certificate lives for minutes: the log says that it signed within them.
  const at = verifyLogged(signed, leaf.der)
  const key = verifySigner(presented, { ...trust, intermediates: [], at, crypto: context.crypto }, what)
  requireFulcioIdentity(leaf, trust.signer, what)
  if (!holds(key, signed)) throw unverified(signed, 'is not by the key of its certificate')
  return `${trust.signer.subjectEmail} of ${trust.signer.oidcIssuer}`
}

function pkiSigner(trust: Extract<Trust, { kind: 'pki' }>, signed: Signed): string {
  const { found, context } = signed
  const presented = presentedCertificate(found)
  const what = `certificate of ${found.source}`
  const key = verifySigner(presented, { ...trust, at: context.now, crypto: context.crypto }, what)
  requirePkiSubject(readLeaf(presented, what), trust.signer, what)
  if (!holds(key, signed)) throw unverified(signed, 'is not by the key of its certificate')
  return `certificate of ${trust.signer.subjectEmail ?? trust.signer.subjectHostname}`
}

function holds(key: SigningKey, { found, signature, context }: Signed): boolean {
  return verifyWithKey(context.crypto, key, { data: found.payload, signature })
}

function verifyLogged({ found, signature, logs, context }: Signed, signer: Uint8Array): Date {
  const text = found.annotations.get(REKOR_ANNOTATION)
  const what = `log entry of ${found.source}`
  if (text === undefined) {
    throw new UnverifiedError(
      'ERR_IMAGE_LOG_ENTRY',
      `${found.source}: no log entry, and ${context.place} demands one`,
      {
        hint: 'Sign with upload to the transparency log.',
      },
    )
  }
  const logged = { payload: found.payload, signature, signer }
  return verifyRekorSet(parseRekorSet(text, what), logged, { logs, crypto: context.crypto, what })
}

function presentedCertificate(found: FoundCosign): PresentedCertificate {
  const leafPem = found.annotations.get(CERTIFICATE_ANNOTATION)
  if (leafPem === undefined) throw malformed(found.source, `no annotation ${CERTIFICATE_ANNOTATION}`)
  return { leafPem, chainPem: found.annotations.get(CHAIN_ANNOTATION) ?? '' }
}

async function readTrust(by: SigstoreSigner, context: RequirementContext): Promise<Trust> {
  switch (by.kind) {
    case 'keys':
      return { kind: 'keys', keys: await readKeys(by.keys, `${context.place}.key`, context) }
    case 'fulcio':
      return { kind: 'fulcio', roots: await readCertificates(by.ca, `${context.place}.fulcio.ca`, context), signer: by }
    case 'pki': {
      const { roots, intermediates } = by
      return {
        kind: 'pki',
        roots: await readCertificates(roots, `${context.place}.pki.caRoots`, context),
        intermediates:
          intermediates === undefined
            ? []
            : await readCertificates(intermediates, `${context.place}.pki.caIntermediates`, context),
        signer: by,
      }
    }
    default:
      return by satisfies never
  }
}

async function readKeys(
  list: readonly ConfiguredBytes[],
  place: string,
  context: RequirementContext,
): Promise<readonly SigningKey[]> {
  const pems = await readAllConfigured(list, context)
  return pems.map((pem, index) => parseSigningKey(pem, `${place} ${index + 1}`))
}

async function readCertificates(
  bytes: ConfiguredBytes,
  place: string,
  context: RequirementContext,
): Promise<readonly Certificate[]> {
  const pem = await readConfigured(bytes, context)
  return parsePemCertificates(pem, place).map((der) => parseCertificate(der, place))
}

function unverified({ found, context }: Signed, why: string): UnverifiedError {
  return new UnverifiedError('ERR_IMAGE_SIGNATURE', `${context.image}: ${found.source} ${why}`, {
    hint: 'Sign the image with the key of the policy, or add the public key it was signed with to the policy.',
  })
}

function malformed(source: string, why: string): MalformedError {
  return new MalformedError('ERR_IMAGE_SIGNATURE_FORMAT', `${source}: ${why}`)
}
