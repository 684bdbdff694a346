/**
 * Full attestation handshakes (challenge, answer, token, one resource) with evidence of TPMs, SEV-SNP and TDX that is signed
 * by keys of our own: the verifier has the same work with it as with any other. Guests are processes of the same machine and
 * as slow as the verifier, so a process's rate is what its processor seconds allow: handshakes by the processor time that
 * the verifier's own processes spent, all of their threads. Latency is what a guest waited for the verifier's two answers
 * while 16 guests asked as fast as they could.
 */
import { spawn } from 'node:child_process'
import { generateKeyPairSync, sign, verify } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import { Attester } from '#attestation/client/attester'
import type { EvidenceSource } from '#attestation/client/evidence-source'
import { createAdminKey } from '#attestation/verifier/admin/authenticator'
import { VerifierAdminClient } from '#attestation/verifier/admin/client'
import { createCa, issueServerCertificate } from '#attestation/verifier/tls'
import { encodePem } from '#attestation/x509/pem'
import type { HttpRequest, HttpResponse, HttpTransport } from '#protocol/http-transport'
import { nodeCrypto } from '#protocol/node/crypto'
import { UndiciTransport } from '#protocol/node/http'
import { type CalculatedTpmCa, createCalculatedTpmCa } from '../test/component/attestation-verifier/calculated-tpm.ts'
import {
  amd,
  INITDATA,
  intel,
  platformKey,
  policyWith,
  snpReference,
  snpSource,
  tdxReference,
  tdxSource,
} from '../test/component/attestation-verifier/hardware-guests.ts'
import { referenceFor } from '../test/component/attestation-verifier/reference.ts'
import { startVendors, type VendorServer } from '../test/component/attestation-verifier/vendor-server.ts'
import { startEnclave } from '../test/fixtures/tdx/quote-maker.ts'
import { median } from './statistics.ts'

const PROGRAM = new URL('../test/component/attestation-verifier/verifier-process.ts', import.meta.url).pathname
/** Linux counts processor time in hundredths of a second. */
const TICKS_PER_SECOND = 100
/** What the target of the latency is stated for. */
const CLIENTS = 16
/** At a time: some hundredths of a second. */
const VERIFICATIONS = 60
/** Handshakes of each guest before any is counted: a service that runs for hours has its code compiled. */
const WARM_UP = 60
const PLATFORMS = ['tpm', 'snp', 'tdx'] as const
type Platform = (typeof PLATFORMS)[number]
/** Handshakes by processor second, over plain HTTP. */
const TARGETS: Readonly<Record<Platform, number>> = { tpm: 1800, snp: 700, tdx: 1800 }

export interface HandshakeFigures {
  readonly platform: Platform
  readonly transport: 'http' | 'https'
  readonly guests: number
  /** Of the verifier, over one store. */
  readonly processes: number
  readonly handshakes: number
  /** By the processor time of all the verifier's processes. */
  readonly perCpuSecond: number
  readonly perSecond: number
  /**
   * Processor time of a handshake, in verifications of a P-384 signature on the same machine at the same time: what the
   * machine does besides slows both down. An SNP report needs one such verification.
   */
  readonly inVerifications: number
  readonly p50Ms: number
  readonly p99Ms: number
  /** Of the verifier's first process: after the first handshakes, at each tenth of the rest, at the end. */
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
        figures.push(await benchTransport({ ...site, platform, transport, perGuest, processes: 1 }))
      }
    }
    const processes = availableParallelism()
    for (const platform of PLATFORMS) {
      say(`verifier: ${platform} over http, ${processes} processes`)
      figures.push(await benchTransport({ ...site, platform, transport: 'http', perGuest, processes }))
    }
    return { handshakes: figures }
  })
}

/** One long run, to see whether memory grows with the number of handshakes. */
export async function benchVerifierMemory(count: number, say: (line: string) => void): Promise<VerifierFigures> {
  return await withGuests(say, async (site) => {
    say(`verifier: ${count} handshakes`)
    const perGuest = Math.ceil(count / CLIENTS)
    return {
      handshakes: [await benchTransport({ ...site, platform: 'tdx', transport: 'http', perGuest, processes: 1 })],
    }
  })
}

interface Site {
  readonly tpms: CalculatedTpmCa
  readonly vendors: VendorServer
  readonly ends: Ends
}

async function withGuests<T>(say: (line: string) => void, work: (site: Site) => Promise<T>): Promise<T> {
  const undo: (() => unknown)[] = []
  const ends = { teardown: (each: () => unknown) => void undo.push(each) }
  try {
    say('verifier: makers of TPMs and processors')
    return await work({ tpms: createCalculatedTpmCa(), vendors: await startVendors(ends), ends })
  } finally {
    for (const each of undo.reverse()) await each()
  }
}

interface Load extends Site {
  readonly platform: Platform
  readonly transport: 'http' | 'https'
  readonly perGuest: number
  readonly processes: number
}

/** Guests on two machines of TDX: a quoting enclave serves all TDs of its platform. */
function guestsOf({ platform, tpms }: Load): readonly EvidenceSource[] {
  const enclaves = [0, 1].map(() => startEnclave(platformKey.key))
  return Array.from({ length: CLIENTS }, (_, index) => {
    if (platform === 'tpm') return tpms.guest(INITDATA)
    if (platform === 'snp') return snpSource()
    const enclave = enclaves[index % enclaves.length]
    return tdxSource(enclave === undefined ? {} : { enclave })
  })
}

async function benchTransport(load: Load): Promise<HandshakeFigures> {
  const { transport, platform, ends, tpms, vendors } = load
  const directory = mkdtempSync(join(tmpdir(), 'caisson-bench-verifier-'))
  ends.teardown(() => rmSync(directory, { recursive: true, force: true }))
  const ca = createCa({ name: 'bench' })
  const adminKey = createAdminKey()
  const roots = [amd.ark.der, amd.ask.der, intel.root.der]
  const settings = {
    storePath: join(directory, 'verifier.db'),
    adminKeys: [adminKey.publicJwk],
    trustedTpmCas: [tpms.rootPem],
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
  const verifiers: RunningProcess[] = []
  try {
    for (let index = 0; index < load.processes; index++) verifiers.push(await startProcess(flags, settings))
    const url = verifiers[0]?.url ?? ''
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
      Promise.all(
        guests.map((evidence, index) => {
          const own = verifiers[index % verifiers.length]?.url ?? url
          return handshakes({ evidence, url: own, http, count, latencies })
        }),
      )
    await run(WARM_UP, []) // code is compiled, keys are made
    const pid = verifiers[0]?.pid ?? 0
    const cpuOfAll = (): number => verifiers.reduce((sum, each) => sum + cpuSeconds(each.pid), 0)
    const latencies: number[] = []
    const verifications: number[] = []
    const residentMib = [residentMibOf(pid)]
    const cpuBefore = cpuOfAll()
    let elapsedMs = 0
    for (let tenth = 0; tenth < 10; tenth++) {
      const start = performance.now()
      await run(Math.ceil(load.perGuest / 10), latencies)
      elapsedMs += performance.now() - start
      residentMib.push(residentMibOf(pid))
      verifications.push(verificationSeconds())
    }
    const cpu = cpuOfAll() - cpuBefore
    const sorted = latencies.toSorted((a, b) => a - b)
    return {
      platform,
      transport,
      guests: guests.length,
      processes: verifiers.length,
      handshakes: latencies.length,
      perCpuSecond: latencies.length / cpu,
      perSecond: (1000 * latencies.length) / elapsedMs,
      inVerifications: cpu / latencies.length / median(verifications),
      p50Ms: median(sorted),
      p99Ms: sorted[Math.floor(sorted.length * 0.99)] ?? Number.NaN,
      residentMib,
    }
  } finally {
    for (const each of verifiers) await each.end()
  }
}

interface RunningProcess {
  readonly pid: number
  readonly url: string
  end(): Promise<void>
}

async function startProcess(flags: readonly string[], settings: object): Promise<RunningProcess> {
  const child = spawn(process.execPath, [...flags, PROGRAM, JSON.stringify(settings)], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  const exited = once(child, 'exit')
  const [line]: string[] = await once(child.stdout.setEncoding('utf8'), 'data')
  return {
    pid: child.pid ?? 0,
    url: (line ?? '').trim(),
    end: async () => {
      child.stdin.end()
      await exited
    },
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

const p384 = generateKeyPairSync('ec', { namedCurve: 'P-384' })
const SIGNED = Buffer.alloc(672)
const SIGNATURE = sign('sha384', SIGNED, p384.privateKey)

/** Processor time of one verification. */
function verificationSeconds(): number {
  const start = process.cpuUsage()
  for (let index = 0; index < VERIFICATIONS; index++) verify('sha384', SIGNED, p384.publicKey, SIGNATURE)
  const { user, system } = process.cpuUsage(start)
  return (user + system) / 1e6 / VERIFICATIONS
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
    const {
      platform,
      transport,
      perCpuSecond,
      perSecond,
      inVerifications,
      p50Ms,
      p99Ms,
      residentMib,
      guests,
      processes,
    } = each
    const over = processes === 1 ? transport : `${transport}, ${processes} processes on one store`
    const target = transport === 'http' && processes === 1 ? ` (target ${TARGETS[platform]})` : ''
    console.log(
      `verifier, ${platform} over ${over}: ${perCpuSecond.toFixed(0)} handshakes per processor second${target}, ${perSecond.toFixed(0)}/s with the guests on the same machine; one costs as much as ${inVerifications.toFixed(1)} verifications of P-384`,
    )
    console.log(
      `  verdicts p50 ${p50Ms.toFixed(1)} ms, p99 ${p99Ms.toFixed(1)} ms at ${guests} clients (target 20 at 16); memory over ${each.handshakes}: ${residentMib.map((mib) => mib.toFixed(0)).join(', ')} MiB`,
    )
  }
}
