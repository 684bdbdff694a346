/**
 * Full attestation handshakes (challenge, answer, token, one resource): with real quotes of software TPMs, and with reports
 * of SEV-SNP and quotes of TDX that are signed by keys of our own. The guests are as slow as the verifier and run on the
 * same machine, so a process's rate is what its processor seconds allow: handshakes by the CPU time that the verifier's own
 * process spent. Latency is what a guest waited for the verifier's two answers.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Attester } from '#attestation/client/attester'
import type { EvidenceSource } from '#attestation/client/evidence-source'
import { tpmEvidenceSource } from '#attestation/client/tpm-evidence-source'
import { createAdminKey } from '#attestation/verifier/admin/authenticator'
import { VerifierAdminClient } from '#attestation/verifier/admin/client'
import { createCa, issueServerCertificate } from '#attestation/verifier/tls'
import { encodePem } from '#attestation/x509/pem'
import type { HttpRequest, HttpResponse, HttpTransport } from '#protocol/http-transport'
import { nodeCrypto } from '#protocol/node/crypto'
import { UndiciTransport } from '#protocol/node/http'
import {
  amd,
  INITDATA,
  intel,
  policyWith,
  snpReference,
  snpSource,
  tdxReference,
  tdxSource,
} from '../test/component/attestation-verifier/hardware-guests.ts'
import { referenceFor } from '../test/component/attestation-verifier/reference.ts'
import { bootTpm, makeTpmCa, type TestTpm } from '../test/component/attestation-verifier/software-tpm.ts'
import { startVendors, type VendorServer } from '../test/component/attestation-verifier/vendor-server.ts'
import { median } from './statistics.ts'

const PROGRAM = new URL('../test/component/attestation-verifier/verifier-process.ts', import.meta.url).pathname
/** Linux counts processor time in hundredths of a second. */
const TICKS_PER_SECOND = 100
const TPMS = 8
/** What the target of the latency is stated for. */
const CLIENTS = 16
const PLATFORMS = ['tpm', 'snp', 'tdx'] as const
type Platform = (typeof PLATFORMS)[number]
/** Handshakes by processor second, over plain HTTP. */
const TARGETS: Readonly<Record<Platform, number>> = { tpm: 1800, snp: 700, tdx: 1800 }

export interface HandshakeFigures {
  readonly platform: Platform
  readonly transport: 'http' | 'https'
  readonly guests: number
  readonly handshakes: number
  /** By the verifier's own processor time. */
  readonly perCpuSecond: number
  readonly perSecond: number
  readonly p50Ms: number
  readonly p99Ms: number
  /** Of the verifier's process: after the first handshakes, at each tenth of the rest, at the end. */
  readonly residentMib: readonly number[]
}

export interface VerifierFigures {
  readonly handshakes: readonly HandshakeFigures[]
}

/** A place for what has to be undone, as tests have one. */
interface Ends {
  teardown(work: () => unknown): void
}

export async function benchVerifier(perGuest: number, say: (line: string) => void): Promise<VerifierFigures> {
  return await withGuests(say, async (site) => {
    const figures: HandshakeFigures[] = []
    for (const platform of PLATFORMS) {
      for (const transport of ['http', 'https'] as const) {
        say(`verifier: ${platform} over ${transport}`)
        figures.push(await benchTransport({ ...site, platform, transport, perGuest }))
      }
    }
    return { handshakes: figures }
  })
}

/** One long run, to see whether memory grows with the number of handshakes. */
export async function benchVerifierMemory(count: number, say: (line: string) => void): Promise<VerifierFigures> {
  return await withGuests(say, async (site) => {
    say(`verifier: ${count} handshakes`)
    const perGuest = Math.ceil(count / CLIENTS)
    return { handshakes: [await benchTransport({ ...site, platform: 'tdx', transport: 'http', perGuest })] }
  })
}

interface Site {
  readonly tpmCa: { readonly rootPem: string; readonly intermediatePem: string }
  readonly tpms: readonly TestTpm[]
  readonly vendors: VendorServer
  readonly ends: Ends
}

async function withGuests<T>(say: (line: string) => void, work: (site: Site) => Promise<T>): Promise<T> {
  const undo: (() => unknown)[] = []
  const ends = { teardown: (each: () => unknown) => void undo.push(each) }
  try {
    say('verifier: making a TPM CA')
    const tpmCa = await makeTpmCa()
    undo.push(() => tpmCa.remove())
    const tpms = await Promise.all(Array.from({ length: TPMS }, () => bootTpm(ends, tpmCa, { initdata: INITDATA })))
    return await work({ tpmCa, tpms, vendors: await startVendors(ends), ends })
  } finally {
    for (const each of undo.reverse()) await each()
  }
}

interface Load extends Site {
  readonly platform: Platform
  readonly transport: 'http' | 'https'
  readonly perGuest: number
}

function guestsOf({ platform, tpms }: Load): readonly EvidenceSource[] {
  if (platform === 'tpm') return tpms.map((tpm) => tpmEvidenceSource({ tpm, crypto: nodeCrypto }))
  return Array.from({ length: CLIENTS }, () => (platform === 'snp' ? snpSource() : tdxSource()))
}

async function benchTransport(load: Load): Promise<HandshakeFigures> {
  const { transport, platform, ends, tpmCa, vendors } = load
  const directory = mkdtempSync(join(tmpdir(), 'caisson-bench-verifier-'))
  ends.teardown(() => rmSync(directory, { recursive: true, force: true }))
  const ca = createCa({ name: 'bench' })
  const adminKey = createAdminKey()
  const roots = [amd.ark.der, amd.ask.der, intel.root.der]
  const settings = {
    storePath: join(directory, 'verifier.db'),
    adminKeys: [adminKey.publicJwk],
    trustedTpmCas: [tpmCa.rootPem],
    tpmIntermediates: [tpmCa.intermediatePem],
    collateralEndpoints: vendors.endpoints,
    trustedCollateralRoots: roots.map((bytes) => encodePem({ label: 'CERTIFICATE', bytes })),
    ...(transport === 'https'
      ? { tls: issueServerCertificate({ ca, names: ['verifier.test'], ips: ['127.0.0.1'] }) }
      : {}),
  }
  const flags =
    process.env.CAISSON_BENCH_PROFILE === undefined
      ? []
      : ['--cpu-prof', '--cpu-prof-dir', process.env.CAISSON_BENCH_PROFILE]
  const child = spawn(process.execPath, [...flags, PROGRAM, JSON.stringify(settings)], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  const exited = once(child, 'exit')
  try {
    const [line]: string[] = await once(child.stdout.setEncoding('utf8'), 'data')
    const url = (line ?? '').trim()
    const http = new UndiciTransport({ caPem: [ca.certificatePem], maxConnections: CLIENTS })
    ends.teardown(() => http.close())
    const admin = new VerifierAdminClient({ http, url, adminKey: adminKey.privateJwk })
    if (platform !== 'tpm') await admin.putPolicy('bench', policyWith([amd.ark.der, intel.root.der]))
    await admin.putReference(referenceFor('guest', { initdata: INITDATA }))
    await admin.putReference(snpReference('snp', [{ vcpus: 1, measurement: 'ab'.repeat(48) }]))
    await admin.putReference(tdxReference('td', {}))
    await admin.putResource('default/bench/key', Buffer.alloc(2048, 'k'))
    const guests = guestsOf(load)
    const run = (count: number, latencies: number[]): Promise<unknown> =>
      Promise.all(guests.map((evidence) => handshakes({ evidence, url, http, count, latencies })))
    await run(Math.ceil(load.perGuest / 10), []) // code is compiled, keys are made
    const pid = child.pid ?? 0
    const latencies: number[] = []
    const residentMib = [residentMibOf(pid)]
    const before = { cpu: cpuSeconds(pid), ms: performance.now() }
    for (let tenth = 0; tenth < 10; tenth++) {
      await run(Math.ceil(load.perGuest / 10), latencies)
      residentMib.push(residentMibOf(pid))
    }
    const cpu = cpuSeconds(pid) - before.cpu
    const sorted = latencies.toSorted((a, b) => a - b)
    return {
      platform,
      transport,
      guests: guests.length,
      handshakes: latencies.length,
      perCpuSecond: latencies.length / cpu,
      perSecond: (1000 * latencies.length) / (performance.now() - before.ms),
      p50Ms: median(sorted),
      p99Ms: sorted[Math.floor(sorted.length * 0.99)] ?? Number.NaN,
      residentMib,
    }
  } finally {
    child.stdin.end()
    await exited
  }
}

async function handshakes(work: {
  readonly evidence: EvidenceSource
  readonly url: string
  readonly http: HttpTransport
  readonly count: number
  readonly latencies: number[]
}): Promise<void> {
  for (let index = 0; index < work.count; index++) {
    const http = new TimedTransport(work.http)
    const guest = new Attester({
      http,
      crypto: nodeCrypto,
      evidence: work.evidence,
      url: work.url,
      now: () => new Date(),
    })
    await guest.attest({ initdataToml: INITDATA })
    await guest.getResource('default/bench/key')
    work.latencies.push(http.attestMs)
  }
}

/** Adds up what the guest waited for challenge and verdict. */
class TimedTransport implements HttpTransport {
  attestMs = 0
  readonly #inner: HttpTransport

  constructor(inner: HttpTransport) {
    this.#inner = inner
  }

  async request(request: HttpRequest): Promise<HttpResponse> {
    const start = performance.now()
    const response = await this.#inner.request(request)
    if (/\/(auth|attest)$/.test(request.url)) this.attestMs += performance.now() - start
    return response
  }

  async close(): Promise<void> {}
}

/** User and system time of a process and its threads (proc(5), fields 14 and 15). */
function cpuSeconds(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND
}

function residentMibOf(pid: number): number {
  const match = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))
  return Number(match?.[1]) / 1024
}

export function printVerifier({ handshakes: figures }: VerifierFigures): void {
  for (const each of figures) {
    const { platform, transport, perCpuSecond, perSecond, p50Ms, p99Ms, residentMib, guests } = each
    const target = transport === 'http' ? ` (target ${TARGETS[platform]})` : ''
    console.log(
      `verifier, ${platform} over ${transport}: ${perCpuSecond.toFixed(0)} handshakes per processor second${target}, ${perSecond.toFixed(0)}/s with the guests on the same machine`,
    )
    console.log(
      `  verdicts p50 ${p50Ms.toFixed(1)} ms, p99 ${p99Ms.toFixed(1)} ms at ${guests} clients (target 20 at 16); memory over ${each.handshakes}: ${residentMib.map((mib) => mib.toFixed(0)).join(', ')} MiB`,
    )
  }
}
