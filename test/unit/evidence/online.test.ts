import { readFileSync } from 'node:fs'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import test from 'ava'
import { STRICT_POLICY } from '#attestation/appraisal/policy'
import { NO_COLLATERAL } from '#attestation/evidence/collateral'
import { kdsRequests } from '#attestation/evidence/online/amd-kds'
import { type Endpoints, fetchCollateral, PUBLIC_ENDPOINTS } from '#attestation/evidence/online/fetch-collateral'
import { pcsRequests } from '#attestation/evidence/online/intel-pcs'
import { verifyEvidenceOnline } from '#attestation/evidence/online/verify-online'
import { verifyEvidence } from '#attestation/evidence/verify-evidence'
import { parsePem } from '#attestation/x509/pem'

const read = (path: string): Buffer => readFileSync(`test/vectors/${path}`)

/** Answers as the services do; what is not in the table is not found. */
async function serve(
  answers: Readonly<
    Record<string, { body: Uint8Array; headers?: Readonly<Record<string, string>> } | 'redirect' | 'endless'>
  >,
  use: (endpoints: Endpoints, asked: string[]) => Promise<void>,
): Promise<void> {
  const asked: string[] = []
  const server = createServer((request: IncomingMessage, response: ServerResponse) => {
    asked.push(request.url ?? '')
    const answer = answers[request.url ?? '']
    if (answer === undefined) response.writeHead(404).end('not found')
    else if (answer === 'redirect') response.writeHead(302, { location: '/elsewhere' }).end()
    else if (answer === 'endless') {
      response.writeHead(200)
      const chunk = Buffer.alloc(1_000_000, 0x30)
      const more = (): void => {
        while (!response.destroyed && response.write(chunk)) {
          // until the reader is slower than we are
        }
      }
      response.on('drain', more)
      more()
    } else response.writeHead(200, answer.headers).end(answer.body)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  try {
    const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
    await use({ amdKds: origin, intelPcs: origin, intelCertificates: origin }, asked)
  } finally {
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  }
}

const TDX_AT = new Date('2025-07-01')
const quote = {
  tee: 'tdx',
  evidence: new Uint8Array(read('tdx/dcap-qvl/sample/tdx_quote')),
  policy: STRICT_POLICY,
  at: TDX_AT,
  nonce: undefined,
} as const
const intel = JSON.parse(read('tdx/dcap-qvl/sample/tdx_quote_collateral.json').toString('utf8')) as Record<
  string,
  string
>
const hex = (name: string): Buffer => Buffer.from(intel[name] ?? '', 'hex')
const chain = (name: string): string => encodeURIComponent(intel[name] ?? '')
const document = (member: string, name: string): Buffer =>
  Buffer.from(`{"${member}":${intel[name]},"signature":"${intel[`${name}_signature`]}"}`)
const PCS = {
  '/tdx/certification/v4/tcb?fmspc=b0c06f000000': {
    body: document('tcbInfo', 'tcb_info'),
    headers: { 'TCB-Info-Issuer-Chain': chain('tcb_info_issuer_chain') },
  },
  '/tdx/certification/v4/qe/identity': {
    body: document('enclaveIdentity', 'qe_identity'),
    headers: { 'SGX-Enclave-Identity-Issuer-Chain': chain('qe_identity_issuer_chain') },
  },
  '/sgx/certification/v4/pckcrl?ca=platform&encoding=der': {
    body: hex('pck_crl'),
    headers: { 'SGX-PCK-CRL-Issuer-Chain': chain('pck_crl_issuer_chain') },
  },
  '/IntelSGXRootCA.der': { body: hex('root_ca_crl') },
} as const

test('with what Intel’s service answers, a bare quote is affirmed', async (t) => {
  const bare = await verifyEvidence({ ...quote, collateral: NO_COLLATERAL })
  t.is(bare.verdict, 'warning')
  await serve(PCS, async (endpoints, asked) => {
    const { judged, collateral } = await verifyEvidenceOnline({ ...quote, collateral: NO_COLLATERAL }, endpoints)
    t.deepEqual(collateral.ignored, [])
    t.deepEqual(asked.toSorted(), Object.keys(PCS).toSorted())
    t.is(judged.verdict, 'affirming')
    const again = await verifyEvidenceOnline({ ...quote, collateral }, endpoints)
    t.is(again.judged.verdict, 'affirming')
    t.is(asked.length, Object.keys(PCS).length, 'nothing is asked for when nothing is missing')
  })
})

test('with what AMD’s service answers, a bare report is judged as with the files', async (t) => {
  const at = new Date('2025-07-01')
  const report = {
    tee: 'snp',
    evidence: new Uint8Array(read('snp/go-sev-guest/verify/testdata/attestation.bin')),
    at,
    nonce: undefined,
  } as const
  const policy = { ...STRICT_POLICY, debug: true }
  const bare = await verifyEvidence({ ...report, policy, collateral: NO_COLLATERAL })
  const { chip_id: chip } = bare.claims as { chip_id: string }
  const [crl] = parsePem(read('snp/openpcc/sev_certificates/test_amd_milan_crl.pem').toString('latin1'))
  const KDS = {
    [`/vcek/v1/Milan/${chip}?blSPL=2&teeSPL=0&snpSPL=5&ucodeSPL=68`]: {
      body: read('snp/go-sev-guest/verify/testdata/vcek.testcer'),
    },
    '/vcek/v1/Milan/cert_chain': { body: read('snp/go-sev-guest/verify/trust/ask_ark_milan.pem') },
    '/vcek/v1/Milan/crl': { body: crl?.bytes ?? new Uint8Array() },
  }
  await serve(KDS, async (endpoints) => {
    const collateral = await fetchCollateral(bare.claims, endpoints)
    // Version 2 names no product: Genoa is asked as well, and does not know the chip.
    t.true(collateral.ignored.every(({ name, why }) => name.includes('/Genoa/') && why.includes('404')))
    t.is((await verifyEvidence({ ...report, policy, collateral })).verdict, 'affirming')
  })
})

test('an answer that redirects, never ends or is missing is reported, and the verdict says what stayed unchecked', async (t) => {
  const bare = await verifyEvidence({ ...quote, collateral: NO_COLLATERAL })
  const answers = { ...PCS, '/tdx/certification/v4/qe/identity': 'redirect', '/IntelSGXRootCA.der': 'endless' } as const
  await serve(answers, async (endpoints, asked) => {
    const collateral = await fetchCollateral(bare.claims, endpoints)
    t.is(collateral.ignored.length, 2)
    t.false(asked.includes('/elsewhere'))
    const { verdict, reasons } = await verifyEvidence({ ...quote, collateral })
    t.is(verdict, 'warning')
    t.deepEqual(reasons.map(({ code }) => code).toSorted(), ['unchecked_crl', 'unchecked_crl', 'unchecked_qe_identity'])
  })
})

test('answers that are forged convince nobody', async (t) => {
  const bare = await verifyEvidence({ ...quote, collateral: NO_COLLATERAL })
  const body = Buffer.from(
    PCS['/tdx/certification/v4/tcb?fmspc=b0c06f000000'].body.toString('utf8').replace('UpToDate', 'OutOfDat'),
  )
  await serve({ ...PCS, '/tdx/certification/v4/tcb?fmspc=b0c06f000000': { body } }, async (endpoints) => {
    const collateral = await fetchCollateral(bare.claims, endpoints).catch(() => NO_COLLATERAL)
    const verdict = await verifyEvidence({ ...quote, collateral }).then(
      (judged) => judged.verdict,
      () => 'refused',
    )
    t.not(verdict, 'affirming')
  })
})

test('nothing of the evidence but identifiers of a known form goes into an address', (t) => {
  const claims = {
    signing_key: 'vcek',
    product: 'Turin',
    chip_id: '00'.repeat(64),
    tcb: { value: '0102030400000007' },
    fmspc: '50806f000000',
  }
  t.deepEqual(
    kdsRequests(claims, PUBLIC_ENDPOINTS).map(({ url }) => url),
    [
      'https://kdsintf.amd.com/vcek/v1/Turin/cert_chain',
      'https://kdsintf.amd.com/vcek/v1/Turin/crl',
      'https://kdsintf.amd.com/vcek/v1/Turin/0000000000000000?fmcSPL=1&blSPL=2&teeSPL=3&snpSPL=4&ucodeSPL=7',
    ],
  )
  t.is(pcsRequests({ ...claims, pck_ca_type: null }, PUBLIC_ENDPOINTS).length, 5)
  for (const hostile of ['../../x', 'Milan/x', 'https://evil.example/', '50806f00000', '50806F000000?x']) {
    const urls = [
      ...kdsRequests({ ...claims, product: hostile, chip_id: hostile, tcb: { value: hostile } }, PUBLIC_ENDPOINTS),
      ...kdsRequests({ ...claims, signing_key: hostile }, PUBLIC_ENDPOINTS),
      ...pcsRequests({ fmspc: hostile, pck_ca_type: hostile }, PUBLIC_ENDPOINTS),
    ].map(({ url }) => url)
    t.false(
      urls.some((url) => url.includes(hostile)),
      hostile,
    )
  }
})
