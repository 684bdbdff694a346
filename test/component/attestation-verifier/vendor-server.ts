/** A server that answers like AMD's and Intel's do, for the makers of `hardware-guests.ts`, and fails when it is told to. */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { ExecutionContext } from 'ava'
import type { Endpoints } from '#attestation/evidence/online/fetch-collateral'
import { encodePem } from '#attestation/x509/pem'
import { toHex } from '#protocol/encoding'
import { answer, qeIdentity, type TcbInfoRequest, tcbInfo } from '../../fixtures/tdx/collateral-maker.ts'
import { FMSPC, revocationList } from '../../fixtures/tdx/intel-pki.ts'
import { amd, amdCrl, CHIP_ID, intel, vcekFor } from './hardware-guests.ts'

const DAY_MS = 24 * 60 * 60 * 1000
const dates = {
  issueDate: new Date(Date.now() - DAY_MS).toISOString().replace(/\.\d+/, ''),
  nextUpdate: new Date(Date.now() + 20 * DAY_MS).toISOString().replace(/\.\d+/, ''),
}
const listDates = { thisUpdate: new Date(Date.now() - DAY_MS), nextUpdate: new Date(Date.now() + 20 * DAY_MS) }

export interface VendorServer {
  readonly endpoints: Endpoints
  /** Paths in the order in which they were asked for. */
  readonly asked: string[]
  /** What the server does instead of answering; undefined: it answers. */
  mode: 'busy' | 'busy at first' | 'broken' | 'down' | 'slow' | 'redirect' | undefined
  /** Of `busy`, seconds. */
  retryAfter: string
  /** Bodies by path that replace the usual ones. */
  readonly bodies: Map<string, Uint8Array | string>
  tcb: TcbInfoRequest
  /** Chips that were ever made; the service has no certificates of others. */
  readonly chips: Uint8Array[]
}

export async function startVendors(t: Pick<ExecutionContext, 'teardown'>): Promise<VendorServer> {
  const server = createServer((request, response) => serve(vendors, request, response))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const vendors: VendorServer = {
    endpoints: { amdKds: origin, intelPcs: origin, intelCertificates: origin },
    asked: [],
    mode: undefined,
    retryAfter: '0',
    bodies: new Map(),
    tcb: dates,
    chips: [CHIP_ID],
  }
  return vendors
}

function serve(vendors: VendorServer, request: IncomingMessage, response: ServerResponse): void {
  const path = request.url ?? ''
  const isFirst = !vendors.asked.includes(path)
  vendors.asked.push(path)
  switch (vendors.mode === 'busy at first' ? (isFirst ? 'busy' : undefined) : vendors.mode) {
    case 'busy':
      response.writeHead(429, { 'retry-after': vendors.retryAfter }).end()
      return
    case 'broken':
      response.writeHead(500).end('sorry')
      return
    case 'down':
      request.socket.destroy()
      return
    case 'redirect':
      response.writeHead(302, { location: '/elsewhere' }).end()
      return
    case 'slow':
      setTimeout(() => reply(vendors, path, response), 300)
      return
    case undefined:
      reply(vendors, path, response)
  }
}

function reply(vendors: VendorServer, path: string, response: ServerResponse): void {
  const usual = answerAt(vendors, path)
  const body = vendors.bodies.get(path) ?? usual?.body
  if (body === undefined) response.writeHead(404).end()
  else response.writeHead(200, usual?.headers ?? {}).end(body)
}

function answerAt(
  { tcb, chips }: VendorServer,
  path: string,
): { body: Uint8Array | string; headers?: Record<string, string> } | undefined {
  const pem = (...ders: readonly Uint8Array[]): string =>
    ders.map((bytes) => encodePem({ label: 'CERTIFICATE', bytes })).join('')
  const signer = encodeURIComponent(pem(intel.signer.der, intel.root.der))
  const platform = encodeURIComponent(pem(intel.platformCa.der, intel.root.der))
  if (path === '/vcek/v1/Milan/cert_chain') return { body: pem(amd.ask.der, amd.ark.der) }
  if (path === '/vcek/v1/Milan/crl') return { body: amdCrl }
  const chipId = chips.find((chip) => path.startsWith(`/vcek/v1/Milan/${toHex(chip)}?`))
  if (chipId !== undefined) return { body: vcekFor({ chipId }).der }
  const table: Readonly<Record<string, { body: Uint8Array | string; headers?: Record<string, string> }>> = {
    [`/tdx/certification/v4/tcb?fmspc=${FMSPC}`]: {
      body: answer('tcbInfo', tcbInfo({ ...dates, ...tcb }), intel.signer),
      headers: { 'TCB-Info-Issuer-Chain': signer },
    },
    '/tdx/certification/v4/qe/identity': {
      body: answer('enclaveIdentity', qeIdentity(dates), intel.signer),
      headers: { 'SGX-Enclave-Identity-Issuer-Chain': signer },
    },
    '/sgx/certification/v4/pckcrl?ca=platform&encoding=der': {
      body: revocationList({ issuer: intel.platformCa, ...listDates }),
      headers: { 'SGX-PCK-CRL-Issuer-Chain': platform },
    },
    '/IntelSGXRootCA.der': { body: revocationList({ issuer: intel.root, ...listDates }) },
  }
  return table[path]
}
