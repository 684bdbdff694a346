/**
 * Full attestation handshakes (challenge, answer, token, one resource) with real quotes of software TPMs. The TPMs and
 * their guests are slower than the verifier, so a process's rate is what its processor seconds allow: handshakes by the
 * CPU time that the verifier's own process spent. Latency is what a guest waited for the verifier's two answers.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Attester } from '#attestation/client/attester'
import { tpmEvidenceSource } from '#attestation/client/tpm-evidence-source'
import { createAdminKey } from '#attestation/verifier/admin/authenticator'
import { VerifierAdminClient } from '#attestation/verifier/admin/client'
import { createCa, issueServerCertificate } from '#attestation/verifier/tls'
import type { HttpRequest, HttpResponse, HttpTransport } from '#protocol/http-transport'
import { nodeCrypto } from '#protocol/node/crypto'
import { UndiciTransport } from '#protocol/node/http'
import { referenceFor } from '../test/component/attestation-verifier/reference.ts'
import { bootTpm, makeTpmCa, type TestTpm } from '../test/component/attestation-verifier/software-tpm.ts'
import { median } from './statistics.ts'

const INITDATA = Buffer.from('version = "0.1.0"\nalgorithm = "sha256"\n[data]\n"policy.yaml" = "x"\n')
const PROGRAM = new URL('../test/component/attestation-verifier/verifier-process.ts', import.meta.url).pathname
/** Linux counts processor time in hundredths of a second. */
const TICKS_PER_SECOND = 100
const GUESTS = 8

export interface HandshakeFigures {
  readonly transport: 'http' | 'https'
  readonly handshakes: number
  /** By the verifier's own processor time. */
  readonly perCpuSecond: number
  readonly p50Ms: number
  readonly p99Ms: number
  readonly residentMib: { readonly before: number; readonly after: number }
}

export interface VerifierFigures {
  readonly tpm: readonly HandshakeFigures[]
}

export async function benchVerifier(perGuest: number, say: (line: string) => void): Promise<VerifierFigures> {
  const undo: (() => unknown)[] = []
  const ends = { teardown: (work: () => unknown) => void undo.push(work) }
  try {
    say('verifier: making a TPM CA')
    const tpmCa = await makeTpmCa()
    undo.push(() => tpmCa.remove())
    const tpms = await Promise.all(Array.from({ length: GUESTS }, () => bootTpm(ends, tpmCa, { initdata: INITDATA })))
    const figures: HandshakeFigures[] = []
    for (const transport of ['http', 'https'] as const) {
      say(`verifier: ${perGuest * GUESTS} handshakes over ${transport}`)
      figures.push(await benchTransport(transport, { tpmCa, tpms, perGuest, ends }))
    }
    return { tpm: figures }
  } finally {
    for (const work of undo.reverse()) await work()
  }
}

interface Load {
  readonly tpmCa: { readonly rootPem: string; readonly intermediatePem: string }
  readonly tpms: readonly TestTpm[]
  readonly perGuest: number
  readonly ends: { teardown(work: () => unknown): void }
}

async function benchTransport(transport: 'http' | 'https', load: Load): Promise<HandshakeFigures> {
  const directory = mkdtempSync(join(tmpdir(), 'caisson-bench-verifier-'))
  load.ends.teardown(() => rmSync(directory, { recursive: true, force: true }))
  const ca = createCa({ name: 'bench' })
  const adminKey = createAdminKey()
  const tls = issueServerCertificate({ ca, names: ['verifier.test'], ips: ['127.0.0.1'] })
  const settings = {
    storePath: join(directory, 'verifier.db'),
    adminKeys: [adminKey.publicJwk],
    trustedTpmCas: [load.tpmCa.rootPem],
    tpmIntermediates: [load.tpmCa.intermediatePem],
    ...(transport === 'https' ? { tls } : {}),
  }
  const child = spawn(process.execPath, [PROGRAM, JSON.stringify(settings)], { stdio: ['pipe', 'pipe', 'inherit'] })
  const exited = once(child, 'exit')
  try {
    const [line]: string[] = await once(child.stdout.setEncoding('utf8'), 'data')
    const url = (line ?? '').trim()
    const http = new UndiciTransport({ caPem: [ca.certificatePem] })
    load.ends.teardown(() => http.close())
    const admin = new VerifierAdminClient({ http, url, adminKey: adminKey.privateJwk })
    await admin.putReference(referenceFor('guest', { initdata: INITDATA }))
    await admin.putResource('default/bench/key', Buffer.alloc(2048, 'k'))
    const latencies: number[] = []
    const run = (count: number, kept: number[]): Promise<unknown> =>
      Promise.all(load.tpms.map((tpm) => handshakes({ tpm, url, http, count, latencies: kept })))
    await run(3, []) // code is compiled, keys are made
    const pid = child.pid ?? 0
    const before = { cpu: cpuSeconds(pid), rss: residentMib(pid) }
    await run(load.perGuest, latencies)
    const cpu = cpuSeconds(pid) - before.cpu
    const sorted = latencies.toSorted((a, b) => a - b)
    return {
      transport,
      handshakes: latencies.length,
      perCpuSecond: latencies.length / cpu,
      p50Ms: median(sorted),
      p99Ms: sorted[Math.floor(sorted.length * 0.99)] ?? Number.NaN,
      residentMib: { before: before.rss, after: residentMib(pid) },
    }
  } finally {
    child.stdin.end()
    await exited
  }
}

async function handshakes(work: {
  readonly tpm: TestTpm
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
      evidence: tpmEvidenceSource({ tpm: work.tpm, crypto: nodeCrypto }),
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

function residentMib(pid: number): number {
  const match = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))
  return Number(match?.[1]) / 1024
}

export function printVerifier({ tpm }: VerifierFigures): void {
  for (const { transport, handshakes, perCpuSecond, p50Ms, p99Ms, residentMib } of tpm) {
    console.log(
      `verifier: ${perCpuSecond.toFixed(0)} TPM handshakes per processor second over ${transport} (${handshakes} of ${GUESTS} guests; target 1800 over http), verdicts p50 ${p50Ms.toFixed(1)} ms, p99 ${p99Ms.toFixed(1)} ms, memory ${residentMib.before.toFixed(0)} to ${residentMib.after.toFixed(0)} MiB`,
    )
  }
}
