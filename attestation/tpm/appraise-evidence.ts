/**
 * The verdict about a TPM's evidence in a file: signed by the key it names, fresh, about these PCR values and this boot log, and
 * by a key of which somebody trusted says that a TPM holds it.
 *
 * A file cannot show the activation of a credential, which binds an attestation key to an endorsement key: without a
 * certificate of the attestation key, or a confidential machine's report that names it, `ak_unbound` remains. The live exchange
 * (`appraise.ts`) does better.
 */
import { equalBytes, toHex } from '#protocol/encoding'
import { nodeCrypto } from '#protocol/node/crypto'
import { replayAdmittedImages } from '#protocol/tpm-messages'
import type { AppraisalContext } from '../evidence/context.ts'
import type { Appraisal, Claims, Finding } from '../evidence/verdict.ts'
import type { TrustVector } from '../token/trust-vector.ts'
import { appraiseBootLog } from './evaluate/boot-log.ts'
import { describeBinding } from './evaluate/key-binding.ts'
import { keyClaims } from './evaluate/key-claims.ts'
import { appraiseQuote, quoteClaims } from './evaluate/quote.ts'
import type { TpmFileEvidence } from './parse/evidence.ts'
import type { PcrValues } from './parse/pcr-values.ts'
import { type QuoteKey, quoteKeyOf } from './parse/quote-key.ts'
import { type AkBinding, bindByCertificate } from './verify/ak-certificate.ts'
import { judgeEndorsements } from './verify/ek-certificate.ts'

const IMAGES_PCR = 15

export function appraiseTpm(evidence: TpmFileEvidence, context: AppraisalContext): Appraisal {
  const key = evidence.key ?? signerAmong(evidence)
  if (key === undefined) return unsigned(evidence)
  const quotes = evidence.quotes.map((quote) => appraiseQuote(quote, { key, nonce: context.nonce }))
  const pcrs = mergePcrs(quotes.map((quote) => quote.pcrs))
  const { at, anchors, collateral } = context
  const trust = { at, anchors, crls: collateral.crls }
  const { certificates: sent } = evidence
  const binding = bindByCertificate({ key, certificates: [...sent, ...collateral.certificates], ...trust })
  const bound = describeBinding(binding, judgeEndorsements({ sent, candidates: collateral.certificates, ...trust }))
  const log = evidence.eventLog === undefined ? undefined : appraiseBootLog(evidence.eventLog, pcrs)
  const findings = [
    ...unique(quotes.flatMap((quote) => quote.findings)),
    ...reportDataFindings(evidence),
    ...bound.findings,
    ...(log?.findings ?? []),
    ...imageFindings(evidence, pcrs),
  ]
  return {
    tee: 'tpm',
    claims: {
      ...quoteClaims(evidence.quotes, pcrs),
      ...keyClaims(key),
      ...bound.claims,
      ...log?.claims,
      ...imageClaims(evidence),
    },
    trustworthiness: trustworthiness(binding, findings),
    findings,
  }
}

/** Banks of several quotes side by side. */
function mergePcrs(all: readonly PcrValues[]): PcrValues {
  const merged = new Map<string, ReadonlyMap<number, Uint8Array>>()
  for (const values of all)
    for (const [bank, pcrs] of values) merged.set(bank, new Map([...(merged.get(bank) ?? []), ...pcrs]))
  return merged as PcrValues
}

/** Evidence without a key of its own: the certificate whose key signed. */
function signerAmong({ certificates, quotes }: TpmFileEvidence): QuoteKey | undefined {
  for (const { publicKey, basicConstraints } of certificates) {
    if (basicConstraints?.ca === true) continue
    const { asymmetricKeyType } = publicKey
    if (asymmetricKeyType !== 'rsa' && asymmetricKeyType !== 'ec') continue
    const key = quoteKeyOf(publicKey)
    if (quotes.every((quote) => appraiseQuote(quote, { key, nonce: undefined }).signed)) return key
  }
  return undefined
}

function unsigned(evidence: TpmFileEvidence): Appraisal {
  const finding: Finding = {
    severity: 'contraindicated',
    code: 'quote_signature',
    message: 'the quote is not signed by the key of any certificate in the evidence',
    remedy: 'Add the public key of the attestation key, or its certificate.',
  }
  return {
    tee: 'tpm',
    claims: quoteClaims(evidence.quotes, new Map()),
    trustworthiness: trustworthiness({ bound: false, certificate: undefined }, [finding]),
    findings: [finding],
  }
}

function reportDataFindings({ quotes, reportData }: TpmFileEvidence): Finding[] {
  if (reportData === undefined) return []
  const other = quotes.find(({ attest }) => !equalBytes(attest.extraData, reportData))
  if (other === undefined) return []
  return [
    {
      severity: 'contraindicated',
      code: 'report_data_mismatch',
      message: 'the quote is not bound to the report data that came with it',
      expected: toHex(reportData),
      found: toHex(other.attest.extraData),
      remedy: 'Evidence of two exchanges was mixed. Attest again.',
    },
  ]
}

function imageFindings({ images }: TpmFileEvidence, pcrs: PcrValues): Finding[] {
  const quoted = pcrs.get('sha256')?.get(IMAGES_PCR)
  if (images === undefined) return []
  const expected = replayAdmittedImages(nodeCrypto, images)
  if (quoted !== undefined && equalBytes(expected, quoted)) return []
  return [
    {
      severity: 'contraindicated',
      code: 'images_mismatch',
      message: `the list of ${images.length} admitted images is not what the guest measured into PCR ${IMAGES_PCR}`,
      expected: toHex(expected),
      found: quoted === undefined ? 'not quoted' : toHex(quoted),
      remedy: 'Do not believe the list; start the guest anew.',
    },
  ]
}

function imageClaims({ images }: TpmFileEvidence): Claims {
  if (images === undefined) return {}
  return { images: images.map(({ container, manifest }) => ({ container, manifest })) }
}

/** AR4SI section 2.3.3: a TPM says who it is; what booted is for reference values to judge. */
function trustworthiness(binding: AkBinding, findings: readonly Finding[]): TrustVector {
  const refused = findings.some(({ severity }) => severity === 'contraindicated')
  return {
    'instance-identity': refused ? 97 : binding.bound ? 2 : 0,
    configuration: 0,
    executables: 0,
    'file-system': 0,
    hardware: 0,
    'runtime-opaque': 0,
    'storage-opaque': 0,
    'sourced-data': 0,
  }
}

function unique(findings: readonly Finding[]): Finding[] {
  return [...new Map(findings.map((finding) => [JSON.stringify(finding), finding])).values()]
}
