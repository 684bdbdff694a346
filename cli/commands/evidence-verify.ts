/** caisson evidence verify: a file of evidence, judged. */
import { type AppraisalPolicy, STRICT_POLICY } from '#attestation/appraisal/policy'
import { type Collateral, NO_COLLATERAL } from '#attestation/evidence/collateral'
import { loadCollateral } from '#attestation/evidence/collateral-folder'
import type { OnlineVerdict } from '#attestation/evidence/online/verify-online'
import type { ClaimValue, Tee } from '#attestation/evidence/verdict'
import { type EvidenceRequest, type JudgedEvidence, verifyEvidence } from '#attestation/evidence/verify-evidence'
import { fromHex } from '#protocol/encoding'
import { UsageError } from '#protocol/errors'
import type { CommandSpec, Invocation } from '../command.ts'
import { EXIT_NO, EXIT_YES } from '../exit-code.ts'
import { readUserFile } from '../files.ts'
import { momentOf } from '../moment.ts'
import { printable } from '../printable.ts'

const TEES: readonly Tee[] = ['snp', 'tdx', 'tpm']
const MAX_NONCE_BYTES = 64

export const evidenceVerify: CommandSpec = {
  path: 'evidence verify',
  summary:
    'Judges a report, quote or evidence document: genuine, fresh, and as the policy demands? Exit code 0 when affirming, ' +
    '1 for any other verdict, 2 for a file that is not evidence. Nothing is fetched without --online.',
  operands: 'FILE',
  minOperands: 1,
  maxOperands: 1,
  options: {
    tee: { type: 'string', placeholder: 'TEE', help: 'what the evidence is of: snp, tdx or tpm' },
    collateral: {
      type: 'string',
      placeholder: 'DIR',
      help: 'certificates, revocation lists, TCB information: any names',
    },
    policy: { type: 'string', placeholder: 'FILE', help: 'appraisal policy (docs/appraisal.md); default: strict' },
    at: {
      type: 'string',
      placeholder: 'TIME',
      help: 'judge as of this time (ISO 8601, or seconds since 1970); default: now',
    },
    nonce: {
      type: 'string',
      placeholder: 'HEX',
      help: 'report data, zeros are added on the right; of a TPM, qualifying data',
    },
    online: { type: 'boolean', help: 'fetch what is missing from AMD and Intel' },
  },
  examples: [
    'caisson evidence verify report.bin --tee snp --collateral certs/ --nonce 00112233',
    'caisson evidence verify quote.dat --tee tdx --collateral pcs/ --at 2025-07-01T00:00:00Z --json',
    'caisson evidence verify evidence.json --tee tpm --policy appraisal.yaml',
  ],
  run: async (invocation) => {
    const at = momentOf(invocation, 'at') ?? new Date()
    const request = {
      evidence: new Uint8Array(readUserFile(invocation.operand(0), 'evidence')),
      tee: teeOption(invocation),
      collateral: collateralOption(invocation),
      policy: await policyOption(invocation),
      at,
      nonce: nonceOption(invocation),
    }
    const { judged, collateral } = invocation.flag('online')
      ? await verifyOnline(request)
      : await verifyOffline(request)
    const { ignored } = collateral
    invocation.out.result(jsonOf(judged, { at, ignored }), textOf(judged, { at, ignored }))
    return judged.verdict === 'affirming' ? EXIT_YES : EXIT_NO
  },
}

async function verifyOffline(request: EvidenceRequest): Promise<OnlineVerdict> {
  return { judged: await verifyEvidence(request), collateral: request.collateral }
}

async function verifyOnline(request: EvidenceRequest): Promise<OnlineVerdict> {
  const { verifyEvidenceOnline } = await import('#attestation/evidence/online/verify-online')
  return verifyEvidenceOnline(request)
}

function teeOption(invocation: Invocation): Tee {
  const text = invocation.required('tee')
  const tee = TEES.find((name) => name === text)
  if (tee !== undefined) return tee
  throw usage(`--tee is ${JSON.stringify(text)}, expected ${TEES.join(', ')}`)
}

function collateralOption(invocation: Invocation): Collateral {
  const folder = invocation.string('collateral')
  return folder === undefined ? NO_COLLATERAL : loadCollateral(folder)
}

/** YAML and CEL are loaded only when there is a policy to read. */
async function policyOption(invocation: Invocation): Promise<AppraisalPolicy> {
  const path = invocation.string('policy')
  if (path === undefined) return STRICT_POLICY
  const { parseAppraisalPolicy } = await import('#attestation/appraisal/parse-policy')
  return parseAppraisalPolicy(readUserFile(path, 'policy').toString('utf8'))
}

function nonceOption(invocation: Invocation): Uint8Array | undefined {
  const text = invocation.string('nonce')
  if (text === undefined) return undefined
  const nonce = fromHex(text.replace(/^0x/, ''), '--nonce')
  if (nonce.length > 0 && nonce.length <= MAX_NONCE_BYTES) return nonce
  throw usage(`--nonce has ${nonce.length} bytes, expected 1 to ${MAX_NONCE_BYTES}`)
}

interface Circumstances {
  readonly at: Date
  readonly ignored: Collateral['ignored']
}

function jsonOf(
  { verdict, tee, claims, trustworthiness, reasons, format }: JudgedEvidence,
  { at, ignored }: Circumstances,
) {
  return {
    verdict,
    tee,
    claims,
    trustworthiness,
    reasons: reasons.map(({ code, message, expected, found, remedy }) => ({
      code,
      message,
      expected: expected ?? null,
      found: found ?? null,
      remedy,
    })),
    format,
    at: at.toISOString(),
    ignored_collateral: ignored,
  }
}

function textOf(judged: JudgedEvidence, { at, ignored }: Circumstances): string {
  const { verdict, tee, claims, reasons, format } = judged
  const lines = [
    `${verdict}: ${tee} evidence, read as ${format.shape} (${format.encoding}), judged as of ${at.toISOString()}`,
    ...reasons.flatMap(({ code, message, expected, found, remedy }) => [
      `- ${code}: ${message}`,
      ...(expected === undefined ? [] : [`    expected: ${expected}`]),
      ...(found === undefined ? [] : [`    found:    ${found}`]),
      `    remedy:   ${remedy}`,
    ]),
    'claims:',
    ...Object.entries(claims).flatMap(([name, value]) => claimLines(name, value)),
    ...(ignored.length === 0
      ? []
      : ['not used as collateral:', ...ignored.map(({ name, why }) => `  ${name}: ${why}`)]),
  ]
  return `${lines.map(printable).join('\n')}\n`
}

/** Lists of words stay on one line; members of objects get lines of their own. */
function claimLines(name: string, value: ClaimValue): string[] {
  if (value === null) return []
  if (typeof value !== 'object') return [`  ${name}: ${String(value)}`]
  if (Array.isArray(value)) {
    const items = value.map((item) => (typeof item === 'object' ? JSON.stringify(item) : String(item)))
    if (items.length === 0) return []
    return items.length <= 8 ? [`  ${name}: ${items.join(', ')}`] : [`  ${name}: ${items.length} entries (--json)`]
  }
  return Object.entries(value).flatMap(([member, inner]: [string, ClaimValue]) =>
    claimLines(`${name}.${member}`, inner),
  )
}

function usage(problem: string): UsageError {
  return new UsageError('ERR_USAGE', `caisson evidence verify: ${problem}`, {
    hint: 'See `caisson evidence verify --help`.',
  })
}
