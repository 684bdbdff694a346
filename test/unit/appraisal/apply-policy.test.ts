import test from 'ava'
import fc from 'fast-check'
import { applyPolicy } from '#attestation/appraisal/apply-policy'
import { parseAppraisalPolicy } from '#attestation/appraisal/parse-policy'
import { STRICT_POLICY } from '#attestation/appraisal/policy'
import { type Appraisal, type Finding, verdictOf } from '#attestation/evidence/verdict'

const AFFIRMING = {
  'instance-identity': 2,
  configuration: 2,
  executables: 0,
  'file-system': 0,
  hardware: 2,
  'runtime-opaque': 2,
  'storage-opaque': 0,
  'sourced-data': 0,
}
const finding = (code: string, severity: Finding['severity']): Finding => ({
  code,
  severity,
  message: code,
  remedy: code,
})
const DEBUG = finding('debug', 'contraindicated')
const STATUS = finding('tcb_status', 'warning')
const snp: Appraisal = {
  tee: 'snp',
  claims: { measurement: 'aa', product: 'Milan', tcb: { boot_loader: 4, snp: 24 }, debug: false, vmpl: 0 },
  trustworthiness: AFFIRMING,
  findings: [],
}
const tdx: Appraisal = {
  tee: 'tdx',
  claims: { mrtd: 'bb', tee_tcb_svn: `0b01${'00'.repeat(14)}`, tcb_status: 'OutOfDate', advisory_ids: ['INTEL-SA-1'] },
  trustworthiness: { ...AFFIRMING, hardware: 32 },
  findings: [STATUS],
}
const tpm: Appraisal = { ...snp, tee: 'tpm', claims: { pcrs: { sha256: { '0': 'cc' } } } }

const policy = (document: object) =>
  parseAppraisalPolicy(JSON.stringify({ apiVersion: 'caisson/v1', kind: 'AppraisalPolicy', ...document }))
const judge = (appraisal: Appraisal, document: object): string => {
  const { verdict, reasons } = verdictOf(applyPolicy(appraisal, policy(document)))
  return [verdict, ...reasons.map(({ code }) => code)].join(' ')
}
const [CC, DD] = ['cc'.repeat(32), 'dd'.repeat(32)]
const debugged = { ...snp, findings: [DEBUG], trustworthiness: { ...AFFIRMING, 'runtime-opaque': 96 } }
const both = { ...debugged, findings: [DEBUG, finding('unchecked_chain', 'warning')] }
const forged = { ...debugged, findings: [DEBUG, finding('signature_invalid', 'contraindicated')] }
const withPcrs = { ...tpm, claims: { pcrs: { sha256: { '0': CC } } } }

const cases: readonly [title: string, appraisal: Appraisal, document: object, outcome: string][] = [
  ['an empty policy leaves an affirming verdict', snp, {}, 'affirming'],
  ['an empty policy leaves a warning', tdx, {}, 'warning tcb_status'],
  ['evidence of a TEE that is not listed is refused', snp, { tee: ['tdx'] }, 'contraindicated policy_tee'],
  ['a debugged guest is refused', debugged, {}, 'contraindicated debug'],
  ['a debugged guest is accepted where the policy says so', debugged, { debug: true }, 'affirming'],
  ['permission to debug leaves what is unchecked', both, { debug: true }, 'warning unchecked_chain'],
  ['permission to debug leaves what is disproven', forged, { debug: true }, 'contraindicated signature_invalid'],
  [
    'permission to debug permits no software TPM',
    { ...tpm, findings: [finding('emulated', 'contraindicated')] },
    { debug: true },
    'contraindicated emulated',
  ],
  [
    'a software TPM is accepted where the policy says so',
    { ...tpm, findings: [finding('emulated', 'contraindicated')] },
    { emulated: true },
    'affirming',
  ],
  [
    'a warning that is permitted is accepted',
    { ...snp, findings: [finding('unchecked_crl', 'warning')] },
    { permit: ['unchecked_crl'] },
    'affirming',
  ],
  [
    'permission of one warning leaves the others',
    { ...snp, findings: [finding('unchecked_crl', 'warning'), finding('migratable', 'warning')] },
    { permit: ['migratable'] },
    'warning unchecked_crl',
  ],
  [
    'what is disproven is not permitted under the name of a warning',
    { ...snp, findings: [finding('service_td', 'contraindicated')] },
    { permit: ['service_td'] },
    'contraindicated service_td',
  ],
  ['a TCB status that is listed is accepted', tdx, { minimum: { tdx: { tcb_status: ['OutOfDate'] } } }, 'affirming'],
  [
    'a TCB status that is not listed is refused',
    tdx,
    { minimum: { tdx: { tcb_status: ['SWHardeningNeeded'] } } },
    'contraindicated tcb_status policy_tcb_status',
  ],
  [
    'an up-to-date platform needs no list',
    { ...tdx, findings: [], trustworthiness: AFFIRMING, claims: { ...tdx.claims, tcb_status: 'UpToDate' } },
    { minimum: { tdx: { tcb_status: ['OutOfDate'] } } },
    'affirming',
  ],
  [
    'an advisory that is not listed is refused',
    tdx,
    { minimum: { tdx: { tcb_status: ['OutOfDate'], advisory_ids: [] } } },
    'contraindicated policy_advisory',
  ],
  [
    'an advisory that is listed is accepted',
    tdx,
    { minimum: { tdx: { tcb_status: ['OutOfDate'], advisory_ids: ['INTEL-SA-1'] } } },
    'affirming',
  ],
  [
    'a TEE_TCB_SVN below the minimum in one byte is refused',
    tdx,
    { minimum: { tdx: { tee_tcb_svn: `0a02${'00'.repeat(14)}` } } },
    'contraindicated tcb_status policy_minimum',
  ],
  [
    'a TEE_TCB_SVN at the minimum is accepted',
    tdx,
    { minimum: { tdx: { tee_tcb_svn: `0b01${'00'.repeat(14)}` } } },
    'warning tcb_status',
  ],
  [
    'an SNP TCB at the minimum is accepted',
    snp,
    { minimum: { snp: { Milan: { boot_loader: 4, snp: 24 } } } },
    'affirming',
  ],
  [
    'each SNP component below the minimum is named',
    snp,
    { minimum: { snp: { Milan: { boot_loader: 5, snp: 25 } } } },
    'contraindicated policy_minimum policy_minimum',
  ],
  [
    'a component that the evidence lacks is below any minimum',
    snp,
    { minimum: { snp: { Milan: { microcode: 0 } } } },
    'contraindicated policy_minimum',
  ],
  [
    'a product without a minimum is refused',
    snp,
    { minimum: { snp: { Genoa: {} } } },
    'contraindicated policy_minimum',
  ],
  ['a minimum of another TEE says nothing', tpm, { minimum: { snp: { Genoa: {} } } }, 'affirming'],
  ['a listed measurement is accepted', snp, { measurements: { measurement: ['00', 'AA'] } }, 'affirming'],
  [
    'a measurement that is not listed is refused',
    snp,
    { measurements: { measurement: ['00'] } },
    'contraindicated policy_measurement',
  ],
  [
    'every listed claim must fit',
    tdx,
    { measurements: { mrtd: ['bb'], rtmr0: ['00'] } },
    'contraindicated tcb_status policy_measurement',
  ],
  [
    'measurements of other TEEs only are no measurement',
    snp,
    { measurements: { mrtd: ['aa'] } },
    'contraindicated policy_measurement',
  ],
  ['a listed PCR is accepted', withPcrs, { measurements: { pcrs: { sha256: { 0: [CC] } } } }, 'affirming'],
  [
    'a PCR that is not listed is refused',
    withPcrs,
    { measurements: { pcrs: { sha256: { 0: [DD] } } } },
    'contraindicated policy_measurement',
  ],
  [
    'a PCR that the evidence lacks is refused',
    withPcrs,
    { measurements: { pcrs: { sha256: { 1: [CC] } } } },
    'contraindicated policy_measurement',
  ],
  [
    'a condition that holds is accepted',
    snp,
    { conditions: [{ name: 'x', require: 'vmpl == 0 && tee == "snp"' }] },
    'affirming',
  ],
  [
    'a condition that does not hold refuses',
    snp,
    { conditions: [{ name: 'x', require: 'vmpl == 1' }] },
    'contraindicated policy_condition',
  ],
  [
    'a condition that cannot be answered refuses',
    snp,
    { conditions: [{ name: 'x', require: 'mrtd == "00"' }] },
    'contraindicated policy_condition_error',
  ],
  [
    'a condition of another TEE says nothing',
    snp,
    { conditions: [{ name: 'x', tee: ['tdx'], require: 'mrtd == "00"' }] },
    'affirming',
  ],
]
for (const [title, appraisal, document, outcome] of cases) {
  test(`appraisal policy: ${title}`, (t) => {
    t.is(judge(appraisal, document), outcome)
  })
}

test('a listed launch digest makes the executables an approved boot', (t) => {
  const document = policy({ measurements: { measurement: ['aa'] } })
  t.is(applyPolicy(snp, document).trustworthiness.executables, 3)
  t.is(applyPolicy({ ...snp, claims: { measurement: 'ab' } }, document).trustworthiness.executables, 33)
  t.is(
    applyPolicy({ ...snp, claims: { host_data: 'aa' } }, policy({ measurements: { host_data: ['aa'] } }))
      .trustworthiness.executables,
    0,
  )
})

test('a failed rule says what was expected, what was found, and what to do', (t) => {
  const conditions = [{ name: 'level', require: 'vmpl == 1', remedy: 'Run at VMPL 1.' }]
  t.deepEqual(verdictOf(applyPolicy(snp, policy({ conditions }))).reasons, [
    {
      code: 'policy_condition',
      message: 'condition "level" does not hold',
      expected: 'vmpl == 1',
      found: 'false',
      remedy: 'Run at VMPL 1.',
    },
  ])
})

test('no policy turns evidence with an unpermitted finding into affirmed evidence', (t) => {
  const findings = fc.array(
    fc.record({
      code: fc.constantFrom('debug', 'emulated', 'tcb_status', 'signature_invalid', 'unchecked_crl'),
      severity: fc.constantFrom('warning', 'contraindicated'),
      message: fc.constant(''),
      remedy: fc.constant(''),
    }),
    { minLength: 1, maxLength: 4 },
  )
  const switches = fc.record({ debug: fc.boolean(), emulated: fc.boolean() })
  fc.assert(
    fc.property(findings, switches, (found, { debug, emulated }) => {
      const permitted = { debug, emulated } as Readonly<Record<string, boolean>>
      const left = found.filter(({ code }) => permitted[code] !== true)
      const { verdict } = verdictOf(applyPolicy({ ...snp, findings: found }, { ...STRICT_POLICY, debug, emulated }))
      return left.length === 0 ? verdict === 'affirming' : verdict !== 'affirming'
    }),
  )
  t.pass()
})
