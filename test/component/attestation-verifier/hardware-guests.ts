/** Guests on SEV-SNP and TDX whose processors are of makers of our own: they answer each challenge with a fresh report. */
import { createHash, type KeyObject } from 'node:crypto'
import { Attester } from '#attestation/client/attester'
import type { EvidenceSource } from '#attestation/client/evidence-source'
import type { ParsedCertificate } from '#attestation/x509/certificate'
import { encodePem } from '#attestation/x509/pem'
import type { JsonValue } from '#protocol/canonical-json'
import { toBase64 } from '#protocol/encoding'
import { nodeCrypto } from '#protocol/node/crypto'
import { authorities, makeReport, type ReportSpec, rootCrl, vekCertificate } from '../../fixtures/snp/amd-like.ts'
import { certifyPlatform, createIntelPki, type Holder, type IntelPki, pemChain } from '../../fixtures/tdx/intel-pki.ts'
import { makeQuote, type QuotingEnclave, type TdFields } from '../../fixtures/tdx/quote-maker.ts'
import type { Site } from './site.ts'

export const INITDATA: Uint8Array = Buffer.from(
  'version = "0.1.0"\nalgorithm = "sha256"\n[data]\n"policy.yaml" = "x"\n',
)
const YEAR_MS = 365 * 24 * 60 * 60 * 1000
/** Boot loader 4, tee 0, snp 24, microcode 0xd3. */
export const TCB: Uint8Array = Uint8Array.of(4, 0, 0, 0, 0, 0, 24, 0xd3)
export const MILAN = [0x19, 0x01, 0x01] as const
export const CHIP_ID: Uint8Array = new Uint8Array(64).fill(0xc1)
const HOST_DATA_OFFSET = 0xc0

export const amd: ReturnType<typeof authorities> = authorities('Milan')
export const amdCrl: Uint8Array = rootCrl('Milan', {
  thisUpdate: new Date(Date.now() - YEAR_MS / 12),
  nextUpdate: new Date(Date.now() + YEAR_MS / 12),
}).der

export interface SnpGuest extends Partial<ReportSpec> {
  readonly initdata?: Uint8Array
  /** What comes along; default: everything. */
  readonly send?: readonly ('VCEK' | 'ASK' | 'ARK' | 'CRL')[]
  readonly vekKey?: KeyObject
  /** Replaces what the report is bound to. */
  readonly binding?: (reportData: Uint8Array) => Uint8Array
}

export function vcekFor({ tcb = TCB, chipId = CHIP_ID }: SnpGuest = {}): ParsedCertificate {
  return vekCertificate({
    kind: 'vcek',
    product: 'Milan',
    tcb,
    hwid: chipId,
    productName: 'Milan-B0',
    notBefore: new Date(Date.now() - YEAR_MS),
    notAfter: new Date(Date.now() + YEAR_MS),
  })
}

export function snpSource(guest: SnpGuest = {}): EvidenceSource {
  const chain = { VCEK: vcekFor(guest).der, ASK: amd.ask.der, ARK: amd.ark.der, CRL: amdCrl }
  const hostData = createHash('sha256')
    .update(guest.initdata ?? INITDATA)
    .digest()
  return source('snp', (reportData) => {
    const report = makeReport({
      tcb: TCB,
      chipId: CHIP_ID,
      cpuid: MILAN,
      ...guest,
      reportData: padded((guest.binding ?? ((data) => data))(reportData)),
      patch: Array.from(hostData, (byte, index) => [HOST_DATA_OFFSET + index, byte] as const),
    })
    const send = guest.send ?? ['VCEK', 'ASK', 'ARK', 'CRL']
    return {
      attestation_report: toBase64(report),
      cert_chain: send.map((kind) => ({ cert_type: kind, data: toBase64(chain[kind]) })),
    }
  })
}

export const intel: IntelPki = createIntelPki()
export const platformKey: Holder = certifyPlatform({ issuer: intel.platformCa, platformInstance: true })

export interface TdxGuest {
  readonly td?: Partial<TdFields>
  readonly initdata?: Uint8Array
  readonly pck?: Holder
  /** Certificates that come with the quote after the platform's own; default: up to the root. */
  readonly issuers?: readonly Holder[]
  /** One quoting enclave for all quotes, as platforms have; default: each quote has its own. */
  readonly enclave?: QuotingEnclave
}

export function tdxSource(guest: TdxGuest = {}): EvidenceSource {
  const pck = guest.pck ?? platformKey
  const digest = createHash('sha256')
    .update(guest.initdata ?? INITDATA)
    .digest()
  return source('tdx', (reportData) => ({
    cc_eventlog: null,
    quote: toBase64(
      makeQuote({
        pckKey: pck.key,
        certification: { type: 5, data: pemChain(pck, ...(guest.issuers ?? [intel.platformCa, intel.root])) },
        ...(guest.enclave === undefined ? {} : { enclave: guest.enclave }),
        td: { ...guest.td, reportData: padded(reportData), mrConfigId: fitted(digest, 48) },
      }),
    ),
  }))
}

export function source(tee: string, answer: (reportData: Uint8Array) => JsonValue): EvidenceSource {
  return {
    prepare: async () => ({
      request: { tee },
      answer: async ({ reportData }) => answer(reportData),
      [Symbol.asyncDispose]: async () => {},
    }),
  }
}

export function attesterOf(site: Site, evidence: EvidenceSource, url: string = site.verifier.url): Attester {
  return new Attester({
    http: site.http,
    crypto: nodeCrypto,
    evidence,
    url,
    now: () => new Date(),
  })
}

/** A policy that trusts these roots. @param more further lines of YAML */
export function policyWith(ders: readonly Uint8Array[], more = ''): string {
  const pem = (der: Uint8Array): string =>
    encodePem({ label: 'CERTIFICATE', bytes: der })
      .trim()
      .split('\n')
      .map((line) => `    ${line}`)
      .join('\n')
  const anchors = ders.map((der) => `  - |\n${pem(der)}`).join('\n')
  return `apiVersion: caisson/v1\nkind: AppraisalPolicy\nanchors:\n${anchors}\n${more}`
}

/** As `caisson measure snp --json` prints it. */
export function snpReference(
  id: string,
  variants: readonly { vcpus: number; measurement: string }[],
  more = {},
): string {
  return JSON.stringify({ version: 1, platform: 'snp', id, measurements: variants, ...more })
}

/** As `caisson measure tdx --json` prints it. */
export function tdxReference(
  id: string,
  values: Partial<Record<'mrtd' | 'rtmr0' | 'rtmr1' | 'rtmr2', string>>,
): string {
  const fill = (byte: string): string => byte.repeat(48)
  const { mrtd = fill('7d'), rtmr0 = fill('01'), rtmr1 = fill('02'), rtmr2 = fill('03') } = values
  return JSON.stringify({
    version: 1,
    platform: 'tdx',
    id,
    measurement: mrtd,
    mrtd,
    rtmr0,
    rtmr1,
    rtmr2,
    rtmr3: fill('00'),
  })
}

export function fitted(bytes: Uint8Array, length: number): Uint8Array {
  const whole = new Uint8Array(length)
  whole.set(bytes.subarray(0, length))
  return whole
}

function padded(digest: Uint8Array): Uint8Array {
  return fitted(digest, 64)
}
