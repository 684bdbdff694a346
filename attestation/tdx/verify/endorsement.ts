/**
 * What Intel says of the platform that made a quote: the provisioning certificate (PCK) and its chain, revocation, TCB
 * information for the platform and the identity of the quoting enclave. Everything here follows from certification data,
 * collateral, anchors and time alone, so it can be kept while they stay the same.
 */
import { equalBytes } from '#protocol/encoding'
import { MalformedError } from '#protocol/errors'
import type { AppraisalContext } from '../../evidence/context.ts'
import type { Finding } from '../../evidence/verdict.ts'
import { type ParsedCertificate, parseCertificate } from '../../x509/certificate.ts'
import { verifyCrl } from '../../x509/crl.ts'
import { nameAttribute } from '../../x509/name.ts'
import { describe, verifyPath } from '../../x509/path.ts'
import { parsePem } from '../../x509/pem.ts'
import { verifySignature } from '../../x509/signature.ts'
import { distinctFindings, pathFindings } from '../findings.ts'
import { INTEL_SGX_ROOT } from '../intel-root.ts'
import { type IntelDocuments, parseIntelDocuments, type SignedDocument } from '../parse/collateral.ts'
import type { EnclaveIdentity } from '../parse/enclave-identity.ts'
import { type PckExtension, parsePckExtension, SGX_EXTENSION_OID } from '../parse/pck-extension.ts'
import type { Quote } from '../parse/quote.ts'
import type { TcbInfo } from '../parse/tcb-info.ts'
import { verifyQeReport } from './quote-signature.ts'
import { ALGORITHMS, COMMON_NAME, type Dated, DocumentVerifier, type TrustContext } from './signed-documents.ts'

export interface Pck {
  readonly certificate: ParsedCertificate
  readonly extension: PckExtension
  /** Which of Intel's CAs issued it, by its name. */
  readonly ca: 'processor' | 'platform' | undefined
}

export interface Endorsement {
  /** Undefined: the quote does not carry it, and it is not in the collateral. */
  readonly pck: Pck | undefined
  /** For this platform and genuine; undefined otherwise, and a finding says why. */
  readonly tcbInfo: TcbInfo | undefined
  readonly qeIdentity: EnclaveIdentity | undefined
  readonly findings: readonly Finding[]
  /** Milliseconds: moments at which something begins or ends to be valid, so that another verdict is possible. */
  readonly boundaries: readonly number[]
}

const PCK_NAME = 'SGX PCK Certificate'
const MAX_PCKS = 64

/** Throws `MalformedError` where certification data or documents cannot be read. */
export function endorse(quote: Quote, context: AppraisalContext): Endorsement {
  const { collateral, at } = context
  const anchors = [INTEL_SGX_ROOT, ...context.anchors]
  const embedded = embeddedChain(quote, [...anchors, ...collateral.certificates])
  const certificates = [...embedded, ...collateral.certificates]
  const trust: TrustContext = { certificates, crls: collateral.crls, anchors, at }
  const documents = parseIntelDocuments(collateral.documents)
  const leaf = embedded[0] ?? findPck(quote, collateral.certificates)
  const { pck, findings } =
    leaf === undefined ? { pck: undefined, findings: [noPck()] } : judgePck(leaf, { trust, embedded })
  const verifier = new DocumentVerifier(trust)
  const tcbInfo = chooseTcbInfo({ quote, pck, documents, verifier })
  const identity = chooseIdentity({ quote, documents, verifier })
  return {
    pck,
    tcbInfo: tcbInfo.content,
    qeIdentity: identity.content,
    findings: distinctFindings([...findings, ...tcbInfo.findings, ...identity.findings]),
    boundaries: boundariesOf(trust, documents),
  }
}

function boundariesOf({ certificates, anchors, crls }: TrustContext, documents: IntelDocuments): number[] {
  const { tcbInfos, identities } = documents
  return [
    ...[...certificates, ...anchors].flatMap(({ notBefore, notAfter }) => [notBefore, notAfter]),
    ...crls.flatMap(({ thisUpdate, nextUpdate }) => [thisUpdate, nextUpdate]),
    ...[...tcbInfos, ...identities].flatMap(({ content }) => [content.issueDate, content.nextUpdate]),
  ].map((date) => date.getTime())
}

/**
 * Types 4 and 5 carry certificates in PEM, leaf first, as C programs write them: with a NUL at the end.
 * @param known certificates that need not be read again: the CAs are usually in the collateral too
 */
function embeddedChain({ certification }: Quote, known: readonly ParsedCertificate[]): ParsedCertificate[] {
  if (certification.type !== 4 && certification.type !== 5) return []
  const text = Buffer.from(withoutZeros(certification.data)).toString('latin1')
  const blocks = parsePem(text)
  const outside = text.replaceAll(/-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g, '')
  if (blocks.length === 0 || blocks.length > 8 || outside.trim() !== '') {
    throw new MalformedError('ERR_QUOTE', 'quote: its certification data is not a chain of certificates in PEM')
  }
  return blocks.map(({ bytes }) => known.find(({ der }) => equalBytes(der, bytes)) ?? parseCertificate(bytes))
}

/** Without those at the end. */
function withoutZeros(bytes: Uint8Array): Uint8Array {
  let end = bytes.length
  while (end > 0 && bytes[end - 1] === 0) end--
  return bytes.subarray(0, end)
}

/** The one of the collateral whose key signed the report of the quoting enclave. */
function findPck(quote: Quote, certificates: readonly ParsedCertificate[]): ParsedCertificate | undefined {
  return certificates
    .filter((certificate) => certificate.extension(SGX_EXTENSION_OID) !== undefined)
    .slice(0, MAX_PCKS)
    .find((certificate) => verifyQeReport(quote, certificate))
}

function noPck(): Finding {
  return {
    severity: 'warning',
    code: 'unchecked_chain',
    message: 'the quote does not carry the certificate of its platform (PCK), and the collateral has none that fits',
    remedy: 'Add the PCK certificate and its chain to the collateral.',
  }
}

function judgePck(
  leaf: ParsedCertificate,
  { trust, embedded }: { readonly trust: TrustContext; readonly embedded: readonly ParsedCertificate[] },
): { pck: Pck | undefined; findings: Finding[] } {
  const { certificates, ...rest } = trust
  const { path, problems } = verifyPath({
    leaf,
    candidates: certificates,
    requireCrl: 'all',
    maxDepth: 4,
    algorithms: ALGORITHMS,
    ...rest,
  })
  const findings = [...pathFindings(problems), ...revokedRoot(path.at(-1), trust)]
  if (problems.length === 0) findings.push(...strayFindings(embedded, path))
  const content = leaf.extension(SGX_EXTENSION_OID)
  const name = nameAttribute(leaf.subject, COMMON_NAME) ?? ''
  if (content === undefined || !name.includes(PCK_NAME) || leaf.basicConstraints?.ca === true) {
    findings.push({
      severity: 'contraindicated',
      code: 'pck_certificate',
      message: `${describe(leaf)} is not the certificate of a platform`,
      expected: `an end-entity certificate ${JSON.stringify(PCK_NAME)} with the SGX extension`,
      found: name,
      remedy: 'Do not trust the evidence: its chain is of another kind.',
    })
    return { pck: undefined, findings }
  }
  return { pck: { certificate: leaf, extension: parsePckExtension(content), ca: issuingCa(leaf) }, findings }
}

function issuingCa({ issuer }: ParsedCertificate): Pck['ca'] {
  const name = nameAttribute(issuer, COMMON_NAME) ?? ''
  if (name.includes('Platform CA')) return 'platform'
  return name.includes('Processor CA') ? 'processor' : undefined
}

/**
 * The chain of a quote must be the one that was verified: nobody signs it as a whole, so a certificate that was changed would
 * otherwise go unnoticed wherever the collateral has the genuine one. A renewed root is that root.
 */
function strayFindings(embedded: readonly ParsedCertificate[], path: readonly ParsedCertificate[]): Finding[] {
  const root = path.at(-1)
  const belongs = (certificate: ParsedCertificate): boolean =>
    path.some(({ der }) => equalBytes(der, certificate.der)) ||
    (root !== undefined && equalBytes(root.publicKeyInfo, certificate.publicKeyInfo) && isSelfSigned(certificate))
  const stray = embedded.find((certificate) => !belongs(certificate))
  if (stray === undefined) return []
  return [
    {
      severity: 'contraindicated',
      code: 'chain_stray',
      message: `the quote carries ${describe(stray)}, which is not part of its chain`,
      expected: path.map((certificate) => describe(certificate)).join(', '),
      remedy: 'The chain was changed or put together from several: ask for the evidence anew.',
    },
  ]
}

function isSelfSigned({ signed, algorithm, signature, publicKey }: ParsedCertificate): boolean {
  return verifySignature(signed, algorithm, signature, publicKey)
}

/** Paths end at a trusted root; Intel could still withdraw it with its own last list. */
function revokedRoot(root: ParsedCertificate | undefined, { crls }: TrustContext): Finding[] {
  if (root === undefined) return []
  const revoked = crls.some((crl) => crl.revoked.has(root.serial) && verifyCrl(crl, root))
  if (!revoked) return []
  const message = `${describe(root)} was revoked by its own key`
  return [{ severity: 'contraindicated', code: 'certificate_revoked', message, remedy: 'Do not trust the platform.' }]
}

interface Chosen<Content> {
  readonly content: Content | undefined
  readonly findings: readonly Finding[]
}

interface Choice {
  readonly quote: Quote
  readonly documents: IntelDocuments
  readonly verifier: DocumentVerifier
}

function chooseTcbInfo({
  quote,
  pck,
  documents,
  verifier,
}: Choice & { readonly pck: Pck | undefined }): Chosen<TcbInfo> {
  const id = quote.body.tee === 'tdx' ? 'TDX' : 'SGX'
  const remedy = `Add the TCB information of the platform for ${id} to the collateral.`
  if (documents.tcbInfos.length === 0 || pck === undefined) {
    const message = 'the security versions of the platform are not judged: there is no TCB information for it'
    const found = brokenText(documents)
    return { content: undefined, findings: [{ severity: 'warning', code: 'unchecked_tcb', message, ...found, remedy }] }
  }
  const { fmspc, pceId } = pck.extension
  const fitting = documents.tcbInfos.filter(
    ({ content }) => content.id === id && content.fmspc === fmspc && content.pceId === pceId,
  )
  if (fitting.length === 0) {
    const mismatch: Finding = {
      severity: 'contraindicated',
      code: 'tcb_info_mismatch',
      message: 'the TCB information in the collateral is of other platforms',
      expected: `${id}, FMSPC ${fmspc}, PCE ${pceId}`,
      found: documents.tcbInfos
        .map(({ content }) => `${content.id}, FMSPC ${content.fmspc}, PCE ${content.pceId}`)
        .join('; '),
      remedy,
    }
    return { content: undefined, findings: [mismatch] }
  }
  return best(fitting, (document) => verifier.verify(document, 'TCB information', 'unchecked_tcb'))
}

/** What looks like the missing document, and cannot be read. */
function brokenText({ broken }: IntelDocuments): { found?: string } {
  return broken.length === 0 ? {} : { found: broken.map(({ name, why }) => `${name}: ${why}`).join('; ') }
}

function chooseIdentity({ quote, documents, verifier }: Choice): Chosen<EnclaveIdentity> {
  const id = quote.body.tee === 'tdx' ? 'TD_QE' : 'QE'
  const remedy = `Add the identity ${id} to the collateral.`
  const fitting = documents.identities.filter(({ content }) => content.id === id)
  if (documents.identities.length === 0) {
    const message = 'it is not judged whether the quoting enclave is one of Intel’s: there is no identity of it'
    const finding = {
      severity: 'warning',
      code: 'unchecked_qe_identity',
      message,
      ...brokenText(documents),
      remedy,
    } as const
    return { content: undefined, findings: [finding] }
  }
  if (fitting.length === 0) {
    const found = documents.identities.map(({ content }) => content.id).join(', ')
    const message = 'the collateral has identities of other enclaves only'
    const mismatch: Finding = {
      severity: 'contraindicated',
      code: 'qe_identity_mismatch',
      message,
      expected: id,
      found,
      remedy,
    }
    return { content: undefined, findings: [mismatch] }
  }
  return best(fitting, (document) => verifier.verify(document, `identity ${id}`, 'unchecked_qe_identity'))
}

/** Of several, the one that holds; of several that hold, the strictest: the highest evaluation number, then the newest. */
function best<Content extends Dated & { readonly evaluationDataNumber: number }>(
  documents: readonly SignedDocument<Content>[],
  verify: (document: SignedDocument<Content>) => ReturnType<DocumentVerifier['verify']>,
): Chosen<Content> {
  const judged = documents.map((document) => ({ content: document.content, ...verify(document) }))
  const disproven = (findings: readonly Finding[]): number =>
    findings.filter(({ severity }) => severity === 'contraindicated').length
  const [chosen] = judged.toSorted(
    (a, b) =>
      disproven(a.findings) - disproven(b.findings) ||
      b.content.evaluationDataNumber - a.content.evaluationDataNumber ||
      b.content.issueDate.getTime() - a.content.issueDate.getTime(),
  )
  if (chosen === undefined) return { content: undefined, findings: [] }
  return { content: chosen.genuine ? chosen.content : undefined, findings: chosen.findings }
}
