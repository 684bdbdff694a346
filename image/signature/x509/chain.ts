/** Path validation (RFC 5280 section 6) for certificates that sign code, as Go's verifier does it for containers/image. */
import type { CryptoProvider, HashAlgorithm, SignatureScheme } from '#protocol/crypto-provider'
import { equalBytes } from '#protocol/encoding'
import { errorText, UnverifiedError } from '#protocol/errors'
import { type Certificate, EXTENSION } from './certificate.ts'

export interface ChainInput {
  readonly leaf: Certificate
  /** Untrusted: they only help to find the way. */
  readonly intermediates: readonly Certificate[]
  readonly roots: readonly Certificate[]
  /** All certificates of the chain must be valid then. */
  readonly at: Date
  readonly crypto: CryptoProvider
}

const CODE_SIGNING = '1.3.6.1.5.5.7.3.3'
const ANY_USAGE = '2.5.29.37.0'
const MAX_DEPTH = 8
/** Bound on signatures checked, whatever certificates the other side piles up. */
const MAX_CHECKS = 100

const ALGORITHMS: ReadonlyMap<string, { scheme: SignatureScheme; hash: HashAlgorithm }> = new Map([
  ['1.2.840.10045.4.3.2', { scheme: 'ecdsa', hash: 'sha256' }],
  ['1.2.840.10045.4.3.3', { scheme: 'ecdsa', hash: 'sha384' }],
  ['1.2.840.10045.4.3.4', { scheme: 'ecdsa', hash: 'sha512' }],
  ['1.2.840.113549.1.1.11', { scheme: 'rsa-pkcs1', hash: 'sha256' }],
  ['1.2.840.113549.1.1.12', { scheme: 'rsa-pkcs1', hash: 'sha384' }],
  ['1.2.840.113549.1.1.13', { scheme: 'rsa-pkcs1', hash: 'sha512' }],
  ['1.3.101.112', { scheme: 'ed25519', hash: 'sha512' }],
])

/**
 * The chain, leaf first, root last. Throws `UnverifiedError` ERR_IMAGE_CERTIFICATE.
 *
 * A subject alternative name that is critical and of a kind not read here does not matter: whoever uses the leaf
 * demands a name of it that was read.
 */
export function verifyChain(input: ChainInput): readonly Certificate[] {
  const state = { checks: 0, failures: [] as string[] }
  const chain = extend([input.leaf], input, state)
  if (chain === undefined) throw refused(state.failures[0] ?? 'no trusted authority issued it')
  return chain
}

interface SearchState {
  checks: number
  readonly failures: string[]
}

function extend(
  chain: readonly Certificate[],
  input: ChainInput,
  state: SearchState,
): readonly Certificate[] | undefined {
  const last = chain.at(-1)
  if (last === undefined || chain.length > MAX_DEPTH) return undefined
  if (input.roots.some((root) => equalBytes(root.der, last.der))) return accept(chain, input, state) ? chain : undefined
  for (const [trusted, candidates] of [
    [true, input.roots],
    [false, input.intermediates],
  ] as const) {
    for (const issuer of candidates) {
      if (!equalBytes(issuer.subject, last.issuer) || chain.some(({ der }) => equalBytes(der, issuer.der))) continue
      if (++state.checks > MAX_CHECKS || !signed(last, issuer, input.crypto, state)) continue
      const longer = [...chain, issuer]
      const found = trusted ? (accept(longer, input, state) ? longer : undefined) : extend(longer, input, state)
      if (found !== undefined) return found
    }
  }
  return undefined
}

function signed(certificate: Certificate, issuer: Certificate, crypto: CryptoProvider, state: SearchState): boolean {
  const algorithm = ALGORITHMS.get(certificate.signatureAlgorithm)
  if (algorithm === undefined) {
    state.failures.push(`signature algorithm ${certificate.signatureAlgorithm} is not accepted`)
    return false
  }
  const { tbs: data, signature } = certificate
  try {
    return crypto.verify({ ...algorithm, publicKey: issuer.publicKey, data, signature })
  } catch (error) {
    state.failures.push(errorText(error))
    return false
  }
}

/** Everything but signatures and names, for a chain that ends at a root. */
function accept(chain: readonly Certificate[], { at }: ChainInput, state: SearchState): boolean {
  for (const [depth, certificate] of chain.entries()) {
    const why = fault(certificate, depth, at)
    if (why === undefined) continue
    state.failures.push(depth === 0 ? why : `the authority above it, ${depth}: ${why}`)
    return false
  }
  return true
}

function fault(certificate: Certificate, depth: number, at: Date): string | undefined {
  if (at < certificate.notBefore || at > certificate.notAfter) {
    return `it is valid from ${certificate.notBefore.toISOString()} to ${certificate.notAfter.toISOString()}, not at ${at.toISOString()}`
  }
  const { extendedKeyUsage: usages, basicConstraints, keyCertSign } = certificate
  if (usages !== undefined && !usages.includes(CODE_SIGNING) && !usages.includes(ANY_USAGE)) {
    return 'its extended key usage is not code signing'
  }
  // Name constraints would forbid names, and are not evaluated here: an authority under them is not used.
  if (certificate.extensions.has(EXTENSION.nameConstraints)) return 'it has name constraints, which are not supported'
  const known = Object.values<string>(EXTENSION)
  for (const [oid, { critical }] of certificate.extensions) {
    if (critical && !known.includes(oid)) return `its critical extension ${oid} is unknown`
  }
  if (depth === 0) return undefined
  if (basicConstraints?.ca !== true || keyCertSign === false) return 'it is not a certificate authority'
  const below = depth - 1
  if (basicConstraints.pathLength !== undefined && below > basicConstraints.pathLength) {
    return `it permits ${basicConstraints.pathLength} authorities below it, here are ${below}`
  }
  return undefined
}

function refused(why: string): UnverifiedError {
  return new UnverifiedError('ERR_IMAGE_CERTIFICATE', `the signing certificate is refused: ${why}`, {
    hint: 'Sign with a certificate that the authority of the policy issued, or name its authority in the policy.',
  })
}
