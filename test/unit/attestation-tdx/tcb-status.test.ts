/** Intel's statuses: of platform, TDX module and quoting enclave, and what they add up to. */
import test from 'ava'
import { type TcbInfoRequest, TDX_COMPONENTS } from '../../fixtures/tdx/collateral-maker.ts'
import { COMPONENTS } from '../../fixtures/tdx/intel-pki.ts'
import { codes, collateralFiles, judge, quote } from '../../fixtures/tdx/platform.ts'

const NEWER = COMPONENTS.map((svn, index) => (index === 0 ? svn + 1 : svn))
const LISTED = [
  'UpToDate',
  'SWHardeningNeeded',
  'ConfigurationNeeded',
  'ConfigurationAndSWHardeningNeeded',
  'OutOfDate',
  'OutOfDateConfigurationNeeded',
  'Revoked',
] as const

for (const status of LISTED) {
  const wanted = status === 'UpToDate' ? 'affirming' : status === 'Revoked' ? 'contraindicated' : 'warning'
  test(`a platform that Intel calls ${status} is ${wanted}, with the advisories of its level alone`, (t) => {
    const levels = [
      { status: 'UpToDate', sgx: NEWER, advisories: ['INTEL-SA-00001'] },
      { status, advisories: ['INTEL-SA-00002'] },
      { status: 'OutOfDate', sgx: COMPONENTS.map(() => 0), advisories: ['INTEL-SA-00003'] },
    ]
    const verdict = judge({ collateral: collateralFiles({ tcb: { levels } }) })
    t.is(verdict.verdict, wanted)
    t.is(verdict.claims.tcb_status, status)
    t.deepEqual(verdict.claims.advisory_ids, ['INTEL-SA-00002'])
    t.deepEqual(codes(verdict), status === 'UpToDate' ? [] : ['tcb_status'])
  })
}

/** A TDX module of major version 1 and this security version, on a platform that Intel calls `platform`. */
function withModule(svn: number, platform: string, second?: readonly [number, number, number]): string {
  const teeTcbSvn = Uint8Array.from([svn, 1, 5, ...new Uint8Array(13)])
  const teeTcbSvn2 = second === undefined ? undefined : Uint8Array.from([...second, ...new Uint8Array(13)])
  const tcb: TcbInfoRequest = {
    levels: [{ status: platform, advisories: ['INTEL-SA-1'] }],
    modules: [
      {
        id: 'TDX_01',
        levels: [
          { isvsvn: 6, status: 'UpToDate' },
          { isvsvn: 4, status: 'OutOfDate', advisories: ['INTEL-SA-2'] },
          { isvsvn: 2, status: 'Revoked' },
        ],
      },
      { id: 'TDX_03', levels: [{ isvsvn: 3, status: 'UpToDate' }] },
    ],
  }
  const td = { teeTcbSvn, ...(teeTcbSvn2 === undefined ? {} : { teeTcbSvn2 }) }
  const evidence = quote(second === undefined ? { td } : { version: 5, body: 'td-1.5', td })
  const verdict = judge({ evidence, collateral: collateralFiles({ tcb }) })
  const status = verdict.claims.tcb_status
  return verdict.verdict === 'affirming' ? 'affirming' : typeof status === 'string' ? status : codes(verdict).join()
}

test('a TDX module of version 1 is judged by the levels of its identity, whatever the platform’s level says of modules', (t) => {
  t.is(withModule(6, 'UpToDate'), 'affirming')
  t.is(withModule(7, 'UpToDate'), 'affirming')
  t.is(withModule(5, 'UpToDate'), 'OutOfDate')
  t.is(withModule(4, 'SWHardeningNeeded'), 'OutOfDate')
  t.is(withModule(4, 'ConfigurationNeeded'), 'OutOfDateConfigurationNeeded')
  t.is(withModule(4, 'ConfigurationAndSWHardeningNeeded'), 'OutOfDateConfigurationNeeded')
  t.is(withModule(4, 'OutOfDate'), 'OutOfDate')
  t.is(withModule(3, 'UpToDate'), 'Revoked')
  t.is(withModule(6, 'Revoked'), 'Revoked')
  t.is(withModule(1, 'UpToDate'), 'tcb_not_supported')
})

test('a TD that an old module started on a platform that was updated since is advised to be started anew', (t) => {
  t.is(withModule(5, 'UpToDate', [6, 1, 5]), 'TDRelaunchAdvised')
  t.is(withModule(5, 'SWHardeningNeeded', [6, 1, 5]), 'TDRelaunchAdvised')
  t.is(withModule(5, 'ConfigurationNeeded', [6, 1, 5]), 'TDRelaunchAdvisedConfigurationNeeded')
  t.is(withModule(5, 'UpToDate', [3, 3, 5]), 'TDRelaunchAdvised')
  t.is(withModule(5, 'UpToDate', [3, 0, 5]), 'TDRelaunchAdvised')
  t.is(withModule(5, 'UpToDate', [5, 1, 5]), 'OutOfDate')
  t.is(withModule(5, 'UpToDate', [6, 1, 4]), 'OutOfDate')
  t.is(withModule(5, 'OutOfDate', [6, 1, 5]), 'OutOfDate')
  t.is(withModule(5, 'UpToDate', [6, 2, 5]), 'tdx_module_unknown')
  t.is(withModule(6, 'UpToDate', [5, 1, 5]), 'affirming')
})

test('a relaunch is no more than a warning, and no advice when the quoting enclave itself is old', (t) => {
  const td = {
    teeTcbSvn: Uint8Array.from([4, 1, 5, ...new Uint8Array(13)]),
    teeTcbSvn2: Uint8Array.from([6, 1, 5, ...new Uint8Array(13)]),
  }
  const levels = [
    { isvsvn: 6, status: 'UpToDate' },
    { isvsvn: 4, status: 'OutOfDate', advisories: ['INTEL-SA-2'] },
  ]
  const tcb = { modules: [{ id: 'TDX_01', levels }] }
  const evidence = quote({ version: 5, body: 'td-1.5', td })
  const advised = judge({ evidence, collateral: collateralFiles({ tcb }) })
  t.is(advised.claims.tcb_status, 'TDRelaunchAdvised')
  t.is(advised.verdict, 'warning')
  t.deepEqual(advised.claims.advisory_ids, ['INTEL-SA-2'])
  const identity = { levels: [{ isvsvn: 4, status: 'OutOfDate', advisories: ['INTEL-SA-9', 'INTEL-SA-2'] }] }
  const old = judge({ evidence, collateral: collateralFiles({ tcb, identity }) })
  t.is(old.claims.tcb_status, 'OutOfDate')
  t.deepEqual(old.claims.advisory_ids, ['INTEL-SA-2', 'INTEL-SA-9'])
})

test('a module of a version that the TCB information does not name is refused', (t) => {
  const td = { teeTcbSvn: Uint8Array.from([6, 4, 5, ...new Uint8Array(13)]) }
  const modules = [{ id: 'TDX_01', levels: [{ isvsvn: 1, status: 'UpToDate' }] }]
  for (const tcb of [{ modules }, {}]) {
    const verdict = judge({ evidence: quote({ td }), collateral: collateralFiles({ tcb }) })
    t.deepEqual(codes(verdict), ['tdx_module_unknown'])
    t.is(verdict.verdict, 'contraindicated')
  }
})

test('each component of the platform must reach its level, not their sum', (t) => {
  for (const index of [0, 7, 15]) {
    const sgx = COMPONENTS.map((svn, at) => (at === index ? svn + 1 : 0))
    const verdict = judge({ collateral: collateralFiles({ tcb: { levels: [{ status: 'UpToDate', sgx }] } }) })
    t.deepEqual(codes(verdict), ['tcb_not_supported'])
    t.is(verdict.verdict, 'contraindicated')
  }
  for (const index of [0, 1, 2, 15]) {
    const tdx = TDX_COMPONENTS.map((svn, at) => (at === index ? svn + 1 : svn))
    const levels = [{ status: 'UpToDate', tdx }]
    t.deepEqual(codes(judge({ collateral: collateralFiles({ tcb: { levels } }) })), ['tcb_not_supported'])
  }
  const levels = [{ status: 'UpToDate', pceSvn: 12 }]
  t.deepEqual(codes(judge({ collateral: collateralFiles({ tcb: { levels } }) })), ['tcb_not_supported'])
})

test('levels are tried from the highest, in whatever order they are written', (t) => {
  const low = { status: 'OutOfDate', sgx: COMPONENTS.map(() => 0) }
  const older = { status: 'OutOfDate', pceSvn: 5 }
  const levels = [low, older, { status: 'UpToDate' }]
  t.is(judge({ collateral: collateralFiles({ tcb: { levels } }) }).verdict, 'affirming')
})

for (const [status, platform, wanted] of [
  ['OutOfDate', 'UpToDate', 'OutOfDate'],
  ['OutOfDate', 'ConfigurationNeeded', 'OutOfDateConfigurationNeeded'],
  ['ConfigurationNeeded', 'UpToDate', 'OutOfDate'],
  ['Revoked', 'UpToDate', 'Revoked'],
  ['OutOfDate', 'Revoked', 'Revoked'],
] as const) {
  test(`a quoting enclave that Intel calls ${status} makes a platform that is ${platform} count as ${wanted}`, (t) => {
    const identity = {
      levels: [
        { isvsvn: 5, status: 'UpToDate' },
        { isvsvn: 3, status },
      ],
    }
    const verdict = judge({ collateral: collateralFiles({ identity, tcb: { levels: [{ status: platform }] } }) })
    t.is(verdict.claims.tcb_status, wanted)
    t.not(verdict.verdict, 'affirming')
  })
}

for (const [field, identity, qe] of [
  ['MRSIGNER', { mrsigner: '11'.repeat(32) }, {}],
  ['ISVPRODID', { isvprodid: 1 }, {}],
  ['MISCSELECT', { miscselect: '01000000' }, {}],
  ['MISCSELECT', {}, { miscSelect: 0x80000000 }],
  ['ATTRIBUTES', { attributes: `15${'0'.repeat(30)}`, attributesMask: 'F'.repeat(32) }, {}],
  ['ATTRIBUTES', {}, { attributes: Uint8Array.from([0x31, ...new Uint8Array(15)]) }],
  ['ISVSVN', { levels: [{ isvsvn: 5, status: 'UpToDate' }] }, {}],
] as const) {
  test(`a quoting enclave with another ${field} than Intel names is refused (${JSON.stringify([identity, Object.keys(qe)])})`, (t) => {
    const verdict = judge({ evidence: quote({ qe }), collateral: collateralFiles({ identity }) })
    t.deepEqual(codes(verdict), ['qe_identity_mismatch'])
    t.is(verdict.verdict, 'contraindicated')
    t.true(verdict.reasons[0]?.message.includes(field))
  })
}

test('a quoting enclave under debug is refused even where an identity would permit it', (t) => {
  const attributes = Uint8Array.from([0x13, ...new Uint8Array(15)])
  const identity = { attributes: `13${'0'.repeat(30)}` }
  const verdict = judge({ evidence: quote({ qe: { attributes } }), collateral: collateralFiles({ identity }) })
  t.deepEqual(codes(verdict), ['qe_debug'])
})
