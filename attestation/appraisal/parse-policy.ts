/** Reading the appraisal policy: YAML of version caisson/v1, every key known, every value of its type. */
import { type PolicyNode, parsePolicyDocument } from '#policies/document'
import { fromHex } from '#protocol/encoding'
import { CaissonError } from '#protocol/errors'
import type { Tee } from '../evidence/verdict.ts'
import { type ParsedCertificate, parseCertificate } from '../x509/certificate.ts'
import { parsePem } from '../x509/pem.ts'
import { MEASURED_CLAIMS } from './claim-types.ts'
import { type Condition, compileExpression } from './condition.ts'
import {
  type AppraisalPolicy,
  PERMITTED_FINDINGS,
  SNP_PRODUCTS,
  SNP_TCB_COMPONENTS,
  type SnpMinimum,
  TCB_STATUSES,
  type TdxMinimum,
} from './policy.ts'

const TEES = ['snp', 'tdx', 'tpm'] as const
const BANKS = { sha1: 20, sha256: 32, sha384: 48, sha512: 64 } as const
const MAX_ITEMS = 4096
const MAX_CONDITIONS = 64
const MAX_ANCHORS = 64
const MAX_TEXT = 512
const TEE_TCB_SVN_BYTES = 16
const MAX_PCR = 23
/** Longest measured claim: report data of 64 bytes. */
const MAX_HEX = 128

/** Throws `MalformedError` ERR_POLICY_MALFORMED with line and path, or ERR_CONDITION. */
export function parseAppraisalPolicy(text: string): AppraisalPolicy {
  const root = parsePolicyDocument(text)
  const fields = root.fields([
    'apiVersion',
    'kind',
    'tee',
    'debug',
    'emulated',
    'permit',
    'anchors',
    'minimum',
    'measurements',
    'conditions',
  ])
  required(fields, 'apiVersion', root).oneOf(['caisson/v1'])
  required(fields, 'kind', root).oneOf(['AppraisalPolicy'])
  const minimum = fields.get('minimum')?.fields(['snp', 'tdx'])
  const measurements = fields.get('measurements')?.fields([...MEASURED_CLAIMS, 'pcrs'])
  return {
    tees: readTees(fields.get('tee')),
    debug: fields.get('debug')?.boolean() ?? false,
    emulated: fields.get('emulated')?.boolean() ?? false,
    permit: bounded(fields.get('permit'), MAX_ITEMS).map((item) => item.oneOf(PERMITTED_FINDINGS)),
    anchors: bounded(fields.get('anchors'), MAX_ANCHORS).flatMap(readAnchor),
    snpMinimum: readSnpMinimum(minimum?.get('snp')),
    tdxMinimum: readTdxMinimum(minimum?.get('tdx')),
    measurements: new Map(
      [...(measurements ?? [])]
        .filter(([name]) => name !== 'pcrs')
        .map(([name, node]) => [name, nonEmpty(node).map((item) => readHex(item))]),
    ),
    pcrs: readPcrs(measurements?.get('pcrs')),
    conditions: bounded(fields.get('conditions'), MAX_CONDITIONS).map(readCondition),
  }
}

function readTees(node: PolicyNode | undefined): readonly Tee[] | undefined {
  return node === undefined ? undefined : nonEmpty(node).map((item) => item.oneOf(TEES))
}

function readAnchor(node: PolicyNode): ParsedCertificate[] {
  try {
    const blocks = parsePem(node.string())
    if (blocks.length === 0 || blocks.some(({ label }) => label !== 'CERTIFICATE')) {
      throw node.fail('must be certificates in PEM')
    }
    return blocks.map(({ bytes }) => parseCertificate(bytes))
  } catch (error) {
    if (error instanceof CaissonError && error.code === 'ERR_POLICY_MALFORMED') throw error
    throw node.fail(`is not a certificate: ${error instanceof CaissonError ? error.message : String(error)}`)
  }
}

function readSnpMinimum(node: PolicyNode | undefined): ReadonlyMap<string, SnpMinimum> | undefined {
  if (node === undefined) return undefined
  return new Map(
    [...node.fields(SNP_PRODUCTS)].map(([product, levels]) => {
      const fields = levels.fields(product === 'Turin' ? SNP_TCB_COMPONENTS : SNP_TCB_COMPONENTS.slice(1))
      return [product, Object.fromEntries([...fields].map(([name, level]) => [name, level.integer(0, 255)]))]
    }),
  )
}

function readTdxMinimum(node: PolicyNode | undefined): TdxMinimum | undefined {
  const fields = node?.fields(['tee_tcb_svn', 'tcb_status', 'advisory_ids'])
  if (fields === undefined) return undefined
  const svn = fields.get('tee_tcb_svn')
  const statuses = fields.get('tcb_status')
  const advisories = fields.get('advisory_ids')
  return {
    teeTcbSvn: svn === undefined ? undefined : fromHex(readHex(svn, TEE_TCB_SVN_BYTES), svn.path),
    statuses: statuses === undefined ? undefined : nonEmpty(statuses).map((item) => item.oneOf(TCB_STATUSES)),
    advisoryIds: advisories === undefined ? undefined : bounded(advisories, MAX_ITEMS).map((item) => readText(item)),
  }
}

function readPcrs(node: PolicyNode | undefined): AppraisalPolicy['pcrs'] {
  const banks = node === undefined ? [] : [...node.fields(Object.keys(BANKS))]
  return new Map(
    banks.map(([bank, registers]) => {
      const bytes = BANKS[bank as keyof typeof BANKS]
      return [
        bank,
        new Map(
          [...registers.entries()].map(([pcr, values]) => {
            if (!/^(0|[1-9]\d?)$/.test(pcr) || Number(pcr) > MAX_PCR) throw values.fail('is not a PCR from "0" to "23"')
            return [Number(pcr), nonEmpty(values).map((item) => readHex(item, bytes))]
          }),
        ),
      ]
    }),
  )
}

function readCondition(node: PolicyNode): Condition {
  const fields = node.fields(['name', 'tee', 'require', 'remedy'])
  const expression = required(fields, 'require', node).string()
  const remedy = fields.get('remedy')
  return {
    name: readText(required(fields, 'name', node)),
    tees: readTees(fields.get('tee')),
    expression,
    remedy: remedy === undefined ? undefined : readText(remedy),
    holds: compileExpression(expression),
  }
}

/** Lower-case hex. @param bytes the exact length; absent: any up to 64 */
function readHex(node: PolicyNode, bytes?: number): string {
  const text = node.string().toLowerCase()
  const fits = bytes === undefined ? text.length > 0 && text.length <= MAX_HEX : text.length === 2 * bytes
  if (!/^([0-9a-f]{2})*$/.test(text) || !fits) {
    throw node.fail(`must be ${bytes === undefined ? '' : `${bytes} bytes in `}hexadecimal`)
  }
  return text
}

function readText(node: PolicyNode): string {
  const text = node.string()
  if (text === '' || text.length > MAX_TEXT) throw node.fail(`must have from 1 to ${MAX_TEXT} characters`)
  return text
}

/** An empty list would be read by some as "anything" and by others as "nothing". */
function nonEmpty(node: PolicyNode): PolicyNode[] {
  const items = bounded(node, MAX_ITEMS)
  if (items.length === 0) throw node.fail('must not be empty', 'Leave the key out to demand nothing.')
  return items
}

function bounded(node: PolicyNode | undefined, most: number): PolicyNode[] {
  if (node === undefined) return []
  const items = node.items()
  if (items.length > most) throw node.fail(`has ${items.length} items, at most ${most}`)
  return items
}

function required(fields: ReadonlyMap<string, PolicyNode>, name: string, parent: PolicyNode): PolicyNode {
  const node = fields.get(name)
  if (node === undefined) throw parent.fail(`lacks ${JSON.stringify(name)}`)
  return node
}
