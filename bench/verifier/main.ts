/**
 * Full attestation handshakes (challenge, answer, token, one resource) with evidence of TPMs, SEV-SNP and TDX that is signed
 * by keys of our own: the verifier has the same work with it as with any other. Guests are of this process and share the
 * machine with the verifier, so a rate is counted twice: by the clock, and by the processor time that the verifier's own
 * processes spent, all of their threads. Waits are those of 16 guests that ask as fast as they can.
 */
import { generateKeyPairSync, sign, verify } from 'node:crypto'
import { availableParallelism } from 'node:os'
import type { EvidenceSource } from '#attestation/client/evidence-source'
import {
  type CalculatedTpmCa,
  createCalculatedTpmCa,
} from '../../test/component/attestation-verifier/calculated-tpm.ts'
import {
  INITDATA,
  platformKey,
  snpSource,
  tdxSource,
} from '../../test/component/attestation-verifier/hardware-guests.ts'
import { startVendors, type VendorServer } from '../../test/component/attestation-verifier/vendor-server.ts'
import { startEnclave } from '../../test/fixtures/tdx/quote-maker.ts'
import { median } from '../statistics.ts'
import { Guest, type Waits } from './guests.ts'
import { cpuSeconds, type Ends, type StoreKind, startService } from './service.ts'

/** What the target of the latency is stated for. */
const CLIENTS = 16
/** At a time: some hundredths of a second. */
const VERIFICATIONS = 60
/** Handshakes of each guest before any is counted: a service that runs for hours has its code compiled. */
const WARM_UP = 100
/** Memory is looked at this often. */
const PARTS = 10
const PLATFORMS = ['tpm', 'snp', 'tdx'] as const
type Platform = (typeof PLATFORMS)[number]
/** Handshakes of one process in a second, over plain HTTP. */
const TARGETS: Readonly<Record<Platform, number>> = { tpm: 1800, snp: 700, tdx: 1800 }
const MIB = 2 ** 20

/** Of the verifier's first process. */
export interface MemoryMib {
  readonly resident: number
  readonly heapUsed: number
  readonly heapTotal: number
  /** Outside of the heap, what JavaScript holds. */
  readonly external: number
}

export interface HandshakeFigures {
  readonly platform: Platform
  readonly transport: 'http' | 'https'
  readonly store: StoreKind
  readonly guests: number
  /** Of the verifier, over one store. */
  readonly processes: number
  readonly handshakes: number
  /** By the processor time of all the verifier's processes. */
  readonly perCpuSecond: number
  /** By the clock. */
  readonly perSecond: number
  /**
   * Processor time of a handshake, in verifications of a P-384 signature on the same machine at the same time: what the
   * machine does besides slows both down. An SNP report needs one such verification.
   */
  readonly inVerifications: number
  /** Challenge and token together. */
  readonly verdict: Wait
  /** Each answer by itself, the resource's included. */
  readonly answer: Wait
  /** Before the first handshake that counts, and after each tenth of them. */
  readonly memory: readonly MemoryMib[]
}

interface Wait {
  readonly p50Ms: number
  readonly p99Ms: number
}

export interface VerifierFigures {
  readonly handshakes: readonly HandshakeFigures[]
}

type Kind = Pick<HandshakeFigures, 'platform' | 'transport' | 'store' | 'processes'> & {
  /** Memory is that after a collection of garbage. */
  readonly collects?: true
}

/** One process as its users start it, then all processors: over SQLite, and over PostgreSQL with and without TLS. */
export async function benchVerifier(perGuest: number, say: (line: string) => void): Promise<VerifierFigures> {
  const all = availableParallelism()
  const kinds = PLATFORMS.flatMap((platform): Kind[] => [
    { platform, transport: 'http', store: 'sqlite', processes: 1 },
    { platform, transport: 'https', store: 'sqlite', processes: 1 },
    { platform, transport: 'http', store: 'sqlite', processes: all },
    { platform, transport: 'http', store: 'postgres', processes: all },
    { platform, transport: 'https', store: 'postgres', processes: all },
  ])
  const handshakes: HandshakeFigures[] = []
  for (const kind of kinds) handshakes.push(await benchKind(kind, perGuest, say))
  return { handshakes }
}

/** One long run, to see whether memory grows with the number of handshakes. */
export async function benchVerifierMemory(count: number, say: (line: string) => void): Promise<VerifierFigures> {
  const kind: Kind = { platform: 'tdx', transport: 'http', store: 'sqlite', processes: 1, collects: true }
  return { handshakes: [await benchKind(kind, Math.ceil(count / CLIENTS), say)] }
}

export async function benchKind(kind: Kind, perGuest: number, say: (line: string) => void): Promise<HandshakeFigures> {
  say(`verifier: ${CLIENTS * perGuest} handshakes, ${titleOf(kind)}`)
  const undo: (() => unknown)[] = []
  const ends: Ends = { teardown: (each) => void undo.push(each) }
  try {
    return await measure({ ...kind, tpms: createCalculatedTpmCa(), vendors: await startVendors(ends), ends }, perGuest)
  } finally {
    for (const each of undo.reverse()) await each()
  }
}

interface Load extends Kind {
  readonly tpms: CalculatedTpmCa
  readonly vendors: VendorServer
  readonly ends: Ends
}

async function measure(load: Load, perGuest: number): Promise<HandshakeFigures> {
  const { platform, transport, store } = load
  const { processes, caPem } = await startService({
    ...load,
    hardware: platform !== 'tpm',
    collects: load.collects === true,
  })
  const guests = evidenceOf(load).map(
    (evidence, index) => new Guest({ evidence, url: processes[index % processes.length]?.url ?? '', ca: caPem }),
  )
  for (const guest of guests) load.ends.teardown(() => guest.close())
  await Promise.all(guests.map((guest) => guest.warmUp(WARM_UP)))
  const memory = [await memoryOf(processes[0])]
  const cpuOfAll = (): number => processes.reduce((sum, { pid }) => sum + cpuSeconds(pid), 0)
  const waits: Waits = { verdicts: [], answers: [] }
  const verifications: number[] = []
  let [cpu, elapsedMs] = [0, 0]
  for (let part = 0; part < PARTS; part++) {
    const [start, cpuBefore] = [performance.now(), cpuOfAll()]
    await Promise.all(guests.map((guest) => guest.handshakes(Math.ceil(perGuest / PARTS), waits)))
    elapsedMs += performance.now() - start
    cpu += cpuOfAll() - cpuBefore
    memory.push(await memoryOf(processes[0]))
    verifications.push(verificationSeconds())
  }
  const handshakes = waits.verdicts.length
  return {
    ...{ platform, transport, store, guests: guests.length, processes: processes.length, handshakes },
    perCpuSecond: handshakes / cpu,
    perSecond: (1000 * handshakes) / elapsedMs,
    inVerifications: cpu / handshakes / median(verifications),
    verdict: waitOf(waits.verdicts),
    answer: waitOf(waits.answers),
    memory,
  }
}

/** Guests of TDX are on two machines: a quoting enclave serves all TDs of its platform. */
function evidenceOf({ platform, tpms }: Load): readonly EvidenceSource[] {
  const enclaves = [0, 1].map(() => startEnclave(platformKey.key))
  return Array.from({ length: CLIENTS }, (_, index) => {
    if (platform === 'tpm') return tpms.guest(INITDATA)
    if (platform === 'snp') return snpSource()
    const enclave = enclaves[index % enclaves.length]
    return tdxSource(enclave === undefined ? {} : { enclave })
  })
}

async function memoryOf(process?: { memory(): Promise<NodeJS.MemoryUsage> }): Promise<MemoryMib> {
  const { rss = 0, heapUsed = 0, heapTotal = 0, external = 0 } = (await process?.memory()) ?? {}
  return { resident: rss / MIB, heapUsed: heapUsed / MIB, heapTotal: heapTotal / MIB, external: external / MIB }
}

function waitOf(times: readonly number[]): Wait {
  const sorted = times.toSorted((a, b) => a - b)
  return { p50Ms: median(sorted), p99Ms: sorted[Math.floor(sorted.length * 0.99)] ?? Number.NaN }
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

function titleOf({ platform, transport, store, processes }: Kind): string {
  return `${platform} over ${transport}, ${processes === 1 ? 'one process' : `${processes} processes`} on ${STORES[store]}`
}

const STORES: Readonly<Record<StoreKind, string>> = { sqlite: 'SQLite', postgres: 'PostgreSQL' }

export function printVerifier({ handshakes: figures }: VerifierFigures): void {
  for (const each of figures) {
    const { platform, transport, store, processes, verdict, answer, memory } = each
    const aimed = transport === 'http' && store === 'sqlite' && processes === 1
    const target = aimed ? ` (target ${TARGETS[platform]})` : ''
    console.log(
      `verifier, ${titleOf(each)}: ${each.perCpuSecond.toFixed(0)} handshakes per processor second${target}, ${each.perSecond.toFixed(0)}/s with the guests on the same machine; one costs as much as ${each.inVerifications.toFixed(1)} verifications of P-384`,
    )
    console.log(
      `  verdicts p50 ${verdict.p50Ms.toFixed(1)} ms, p99 ${verdict.p99Ms.toFixed(1)} ms at ${each.guests} clients (target 20 at 16); single answers p50 ${answer.p50Ms.toFixed(1)} ms, p99 ${answer.p99Ms.toFixed(1)} ms`,
    )
    const curve = (name: keyof MemoryMib): string => memory.map((point) => point[name].toFixed(0)).join(', ')
    const middle = memory[memory.length >> 1]?.resident ?? Number.NaN
    const growth = (memory.at(-1)?.resident ?? Number.NaN) - middle
    console.log(
      `  memory over ${each.handshakes}: resident ${curve('resident')} MiB (${growth.toFixed(1)} in the second half); heap ${curve('heapUsed')} MiB`,
    )
  }
}
