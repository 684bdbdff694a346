import { readFileSync } from 'node:fs'
import test from 'ava'
import { parseAppraisalPolicy } from '#attestation/appraisal/parse-policy'
import { encodePem } from '#attestation/x509/pem'
import { CaissonError, MalformedError } from '#protocol/errors'
import { fitsSchema } from '../../fixtures/json-schema.ts'
import { CA, issueCertificate, newKey } from '../../fixtures/x509/issue.ts'
import { altered, damaged, refusesOrKeeps } from '../parser-property.ts'

const SCHEMA = JSON.parse(readFileSync('docs/schemas/appraisal-policy.schema.json', 'utf8')) as Record<string, unknown>
const { publicKey, privateKey } = newKey()
const root = { subject: 'root', key: publicKey, issuer: { name: 'root', key: privateKey }, extensions: [CA] }
const pem = encodePem({ label: 'CERTIFICATE', bytes: issueCertificate(root) })

const HEAD = { apiVersion: 'caisson/v1', kind: 'AppraisalPolicy' }
const FULL = {
  ...HEAD,
  tee: ['snp', 'tdx'],
  debug: true,
  emulated: true,
  permit: ['sept_ve', 'unchecked_crl'],
  anchors: [pem + pem, pem],
  minimum: {
    snp: { Milan: { boot_loader: 4, snp: 24, microcode: 219 }, Turin: { fmc: 1, tee: 0 } },
    tdx: {
      tee_tcb_svn: '0b0104000000000000000000000000ff',
      tcb_status: ['SWHardeningNeeded'],
      advisory_ids: ['INTEL-SA-00289'],
    },
  },
  measurements: {
    measurement: ['AB'.repeat(48)],
    rtmr3: ['00'.repeat(48)],
    pcrs: { sha256: { 0: ['00'.repeat(32)], 23: ['01'.repeat(32)] } },
  },
  conditions: [{ name: 'no vmpl', tee: ['snp'], require: 'vmpl == 0 && tcb.snp >= 8', remedy: 'Run at VMPL 0.' }],
}
const parse = (document: unknown) => parseAppraisalPolicy(JSON.stringify(document))

test('a policy is read key by key', (t) => {
  const policy = parse(FULL)
  t.deepEqual(policy.tees, ['snp', 'tdx'])
  t.true(policy.debug && policy.emulated)
  t.is(policy.anchors.length, 3)
  t.deepEqual(policy.snpMinimum?.get('Turin'), { fmc: 1, tee: 0 })
  t.is(policy.tdxMinimum?.teeTcbSvn?.at(-1), 255)
  t.deepEqual(policy.measurements.get('measurement'), ['ab'.repeat(48)])
  t.deepEqual(policy.pcrs.get('sha256')?.get(23), ['01'.repeat(32)])
  t.deepEqual(
    policy.conditions.map(({ name, tees, remedy }) => ({ name, tees, remedy })),
    [{ name: 'no vmpl', tees: ['snp'], remedy: 'Run at VMPL 0.' }],
  )
})

test('a policy that says nothing permits nothing', (t) => {
  const policy = parseAppraisalPolicy('apiVersion: caisson/v1\nkind: AppraisalPolicy\n')
  t.false(policy.debug)
  t.false(policy.emulated)
  t.deepEqual(
    [policy.anchors, policy.conditions, policy.tees, policy.snpMinimum, policy.tdxMinimum],
    [[], [], undefined, undefined, undefined],
  )
})

/** What schema and parser must agree on. */
const refused: readonly [mistake: string, document: unknown][] = [
  ['no version', { kind: 'AppraisalPolicy' }],
  ['another version', { ...HEAD, apiVersion: 'caisson/v2' }],
  ['another kind', { ...HEAD, kind: 'WorkloadPolicy' }],
  ['an unknown key', { ...HEAD, debugging: true }],
  ['a switch that is text', { ...HEAD, debug: 'true' }],
  ['permission for what is disproven', { ...HEAD, permit: ['signature_invalid'] }],
  ['permission for what nobody checked', { ...HEAD, permit: ['unchecked_chain'] }],
  ['an unknown TEE', { ...HEAD, tee: ['sgx'] }],
  ['an empty list of TEEs', { ...HEAD, tee: [] }],
  ['anchors that are no list', { ...HEAD, anchors: pem }],
  ['an unknown product', { ...HEAD, minimum: { snp: { Rome: {} } } }],
  ['a component that the product does not have', { ...HEAD, minimum: { snp: { Milan: { fmc: 1 } } } }],
  ['a level that no byte holds', { ...HEAD, minimum: { snp: { Milan: { snp: 256 } } } }],
  ['a TEE_TCB_SVN of 15 bytes', { ...HEAD, minimum: { tdx: { tee_tcb_svn: '00'.repeat(15) } } }],
  ['a TCB status that is never accepted', { ...HEAD, minimum: { tdx: { tcb_status: ['Revoked'] } } }],
  ['a claim that is not measured', { ...HEAD, measurements: { vmpl: ['00'] } }],
  ['an empty list of measurements', { ...HEAD, measurements: { mrtd: [] } }],
  ['a measurement that is not hexadecimal', { ...HEAD, measurements: { mrtd: ['xyz'] } }],
  ['an unknown bank', { ...HEAD, measurements: { pcrs: { md5: {} } } }],
  ['PCR 24', { ...HEAD, measurements: { pcrs: { sha256: { 24: ['00'.repeat(32)] } } } }],
  ['PCR 00', { ...HEAD, measurements: { pcrs: { sha256: { '00': ['00'.repeat(32)] } } } }],
  ['a PCR value of another bank’s length', { ...HEAD, measurements: { pcrs: { sha256: { 0: ['00'.repeat(20)] } } } }],
  ['a condition without a name', { ...HEAD, conditions: [{ require: 'true' }] }],
  ['a condition that requires nothing', { ...HEAD, conditions: [{ name: 'x' }] }],
  ['a condition of 2049 characters', { ...HEAD, conditions: [{ name: 'x', require: 'true || '.repeat(300) }] }],
  ['65 conditions', { ...HEAD, conditions: Array.from({ length: 65 }, () => ({ name: 'x', require: 'true' })) }],
]
for (const [mistake, document] of refused) {
  test(`a policy with ${mistake} is refused, by the published schema as well`, (t) => {
    t.throws(() => parse(document), { instanceOf: MalformedError })
    t.false(fitsSchema(document, SCHEMA))
  })
}

/** What only the parser sees. */
const unseen: readonly [mistake: string, text: string, code: string][] = [
  ['a key twice', 'apiVersion: caisson/v1\nkind: AppraisalPolicy\ndebug: false\ndebug: true\n', 'ERR_POLICY_MALFORMED'],
  [
    'an alias',
    'apiVersion: caisson/v1\nkind: AppraisalPolicy\ntee: &a [snp]\nconditions: *a\n',
    'ERR_POLICY_MALFORMED',
  ],
  ['an anchor that is no certificate', JSON.stringify({ ...HEAD, anchors: ['nothing'] }), 'ERR_POLICY_MALFORMED'],
  [
    'an anchor that is a broken certificate',
    JSON.stringify({ ...HEAD, anchors: [pem.replace('MII', 'MIJ')] }),
    'ERR_POLICY_MALFORMED',
  ],
  [
    'a condition that is no CEL',
    JSON.stringify({ ...HEAD, conditions: [{ name: 'x', require: '1 +' }] }),
    'ERR_CONDITION',
  ],
  ['300 KiB of text', `# ${'x'.repeat(300 * 1024)}`, 'ERR_POLICY_MALFORMED'],
  ['nothing in it', '', 'ERR_POLICY_MALFORMED'],
]
for (const [mistake, text, code] of unseen) {
  test(`a policy with ${mistake} is refused`, (t) => {
    t.throws(() => parseAppraisalPolicy(text), { instanceOf: MalformedError, code })
  })
}

test('the published schema and the parser accept the same documents', (t) => {
  t.true(fitsSchema(FULL, SCHEMA))
  refusesOrKeeps(t, altered(FULL), parse, (_policy, document) => fitsSchema(document, SCHEMA))
  refusesOrKeeps(
    t,
    altered(FULL.minimum.tdx),
    (tdx) => parse({ ...HEAD, minimum: { tdx } }),
    (_policy, tdx) => fitsSchema({ ...HEAD, minimum: { tdx } }, SCHEMA),
  )
  for (const [name, value] of Object.entries(FULL)) {
    const document = { ...HEAD, [name]: value }
    t.is(fitsSchema(document, SCHEMA), accepts(document), name)
  }
})

function accepts(document: unknown): boolean {
  try {
    parse(document)
    return true
  } catch (error) {
    return !(error instanceof CaissonError)
  }
}

test('whatever text comes as a policy, it is read or refused', (t) => {
  refusesOrKeeps(t, damaged(JSON.stringify(FULL)), parseAppraisalPolicy)
})

test('the example of the documentation is a policy', (t) => {
  const [, example = ''] = /```yaml\n([\s\S]*?)```/.exec(readFileSync('docs/appraisal.md', 'utf8')) ?? []
  t.notThrows(() => parseAppraisalPolicy(example))
})
