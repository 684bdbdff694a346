/**
 * Verdicts about evidence: how many a process gives in a second, each beside its peer of the same run. Programs take turns
 * (ours, peer, peer, ours), each turn is long enough to time, and a figure is the median of its turns. Seconds are those of the
 * processor: verdicts wait for nothing.
 */
import { execFileSync } from 'node:child_process'
import { verify } from 'node:crypto'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { applyPolicy } from '#attestation/appraisal/apply-policy'
import { STRICT_POLICY } from '#attestation/appraisal/policy'
import { appraiseAzure } from '#attestation/azure/appraise'
import { parseAzureEvidence } from '#attestation/azure/parse/evidence'
import { type CollateralFile, readCollateral } from '#attestation/evidence/collateral'
import type { AppraisalContext } from '#attestation/evidence/context'
import { type Appraisal, verdictOf } from '#attestation/evidence/verdict'
import { appraiseSnp } from '#attestation/snp/appraise'
import { parseSnpEvidence } from '#attestation/snp/parse/evidence'
import { SIGNED_BYTES } from '#attestation/snp/parse/report'
import { readEcdsaSignature } from '#attestation/snp/verify/report-signature'
import { VekChainCache } from '#attestation/snp/verify/vek-chain-cache'
import { appraiseTdx } from '#attestation/tdx/appraise'
import { parseTdxEvidence } from '#attestation/tdx/parse/evidence'
import { EndorsementCache } from '#attestation/tdx/verify/endorsement-cache'
import { appraiseEventLog } from '#attestation/tpm/appraise-log'
import { describeSteps } from '#attestation/tpm/parse/describe-log'
import { eventLogSteps, parseEventLog } from '#attestation/tpm/parse/event-log'
import { replayEventLog, replaySteps } from '#attestation/tpm/verify/replay'
import { inSlices } from '#attestation/verifier/in-slices'
import { parseCertificate } from '#attestation/x509/certificate'
import { nodeCrypto } from '#protocol/node/crypto'
import { costliestLog } from '../test/fixtures/tpm/costliest-log.ts'
import { median } from './statistics.ts'

const VECTORS = new URL('../test/vectors/', import.meta.url)
const TURN_MS = 120
const WARM_UP_MS = 300
const COLD_ROUNDS = 11
const TAMPERED_STEP = 13

export interface Rate {
  /** Median over the turns. */
  readonly perSecond: number
  readonly turns: readonly number[]
}

/** Quotes with one changed byte. */
interface TamperedFigures {
  readonly quotes: number
  /** Ours with and without what was verified before, and the peer's. */
  readonly equal: number
  /** Ours refuses: padding that is not zeros, certificates that the chain does not need. */
  readonly onlyPeerAccepts: number
  /** Must be none. */
  readonly onlyOursAccepts: number
  /** Must be none. */
  readonly cacheDiffers: number
}

export interface EvidenceFigures {
  readonly rounds: number
  readonly tdx: {
    readonly anew: Rate
    readonly warm: Rate
    readonly peer: Rate
    /** Times as many as the peer; targets: 3 and 8. */
    readonly anewRatio: number
    readonly warmRatio: number
    readonly tampered: TamperedFigures
  }
  readonly snp: { readonly warm: Rate; readonly anew: Rate; readonly bareSignature: Rate; readonly ratio: number }
  readonly tpm: {
    readonly azure: Rate
    readonly eventLog: Rate
    readonly events: number
    /** Milliseconds of processor for the costliest log that the parser's limits allow, as the command judges it. */
    readonly costliestLogMs: number
    /** As the verifier service reads it, beside everything else: how long the event loop was kept at most. */
    readonly longestHoldMs: number
  }
  /** Milliseconds from the start of the process to its end. */
  readonly coldStartMs: Readonly<Record<string, number>>
}

const read = (path: string): Uint8Array => new Uint8Array(readFileSync(new URL(path, VECTORS)))
const file = (name: string): CollateralFile => ({ name, bytes: read(name) })

export async function benchEvidence(rounds: number, say: (line: string) => void): Promise<EvidenceFigures> {
  say('evidence: TDX quotes beside dcap-qvl')
  const tdx = benchTdx(rounds)
  say('evidence: SNP reports beside their bare signature checks')
  const snp = benchSnp(rounds)
  say('evidence: quotes of TPMs and event logs')
  const tpm = await benchTpm(rounds)
  say('evidence: cold starts')
  return { rounds, tdx, snp, tpm, coldStartMs: coldStarts() }
}

/** Peer: npm @phala/dcap-qvl, which verifies quote, chain, lists, TCB information and identity from their text every time. */
interface DcapQvl {
  verify(quote: Uint8Array, collateral: unknown, seconds: number): { readonly status: string }
}

function benchTdx(rounds: number): EvidenceFigures['tdx'] {
  const quote = read('tdx/dcap-qvl/sample/tdx_quote')
  const files = [file('tdx/dcap-qvl/sample/tdx_quote_collateral.json')]
  const at = new Date('2025-07-01T00:00:00Z')
  const contextOf = (): AppraisalContext => ({ at, nonce: undefined, anchors: [], collateral: readCollateral(files) })
  const known = contextOf()
  const cache = new EndorsementCache()
  const qvl = createRequire(import.meta.url)('@phala/dcap-qvl') as DcapQvl
  const peerCollateral: unknown = JSON.parse(Buffer.from(files[0]?.bytes ?? []).toString('utf8'))
  const anew = (bytes: Uint8Array): boolean => isAffirmed(() => appraiseTdx(parseTdxEvidence(bytes), contextOf()))
  const warm = (bytes: Uint8Array): boolean => isAffirmed(() => appraiseTdx(parseTdxEvidence(bytes), known, cache))
  const peer = (bytes: Uint8Array): boolean => {
    try {
      return qvl.verify(bytes, peerCollateral, at.getTime() / 1000).status === 'UpToDate'
    } catch {
      return false
    }
  }
  const judges = { anew, warm, peer }
  for (const [name, judge] of Object.entries(judges)) {
    if (!judge(quote)) throw new Error(`the good quote is not accepted by ${name}`)
  }
  const rates = interleave(rounds, {
    anew: () => anew(quote),
    peer: () => peer(quote),
    warm: () => warm(quote),
  })
  return {
    ...rates,
    anewRatio: rates.anew.perSecond / rates.peer.perSecond,
    warmRatio: rates.warm.perSecond / rates.peer.perSecond,
    tampered: compareTampered(quote, judges),
  }
}

function compareTampered(
  quote: Uint8Array,
  { anew, warm, peer }: Readonly<Record<'anew' | 'warm' | 'peer', (bytes: Uint8Array) => boolean>>,
): TamperedFigures {
  const places = Array.from({ length: Math.floor(quote.length / TAMPERED_STEP) }, (_, index) => index * TAMPERED_STEP)
  const verdicts = places.map((at) => {
    const changed = quote.with(at, (quote[at] ?? 0) ^ 1)
    return { anew: anew(changed), warm: warm(changed), peer: peer(changed) }
  })
  const count = (matches: (verdict: (typeof verdicts)[number]) => boolean): number => verdicts.filter(matches).length
  return {
    quotes: places.length,
    equal: count((verdict) => verdict.anew === verdict.warm && verdict.anew === verdict.peer),
    onlyPeerAccepts: count((verdict) => verdict.peer && !verdict.anew),
    onlyOursAccepts: count((verdict) => verdict.anew && !verdict.peer),
    cacheDiffers: count((verdict) => verdict.anew !== verdict.warm),
  }
}

function isAffirmed(appraise: () => Appraisal): boolean {
  try {
    return verdictOf(applyPolicy(appraise(), STRICT_POLICY)).verdict === 'affirming'
  } catch {
    return false
  }
}

function benchSnp(rounds: number): EvidenceFigures['snp'] {
  const bytes = read('snp/trustee/deps/verifier/test_data/snp/test-vlek-report.bin')
  const vek = file('snp/trustee/deps/verifier/test_data/snp/test-vlek.der')
  const files = [vek, file('snp/openpcc/sev_certificates/test_amd_milan_crl.pem')]
  const at = new Date('2025-08-01T00:00:00Z')
  const contextOf = (): AppraisalContext => ({ at, nonce: undefined, anchors: [], collateral: readCollateral(files) })
  const known = contextOf()
  const cache = new VekChainCache()
  const { publicKey } = parseCertificate(vek.bytes)
  const { report } = parseSnpEvidence(bytes)
  const signature = readEcdsaSignature(report.signature)
  const warm = (): boolean => isAffirmed(() => appraiseSnp(parseSnpEvidence(bytes), known, cache))
  const anew = (): boolean => isAffirmed(() => appraiseSnp(parseSnpEvidence(bytes), contextOf()))
  const bareSignature = (): boolean =>
    signature !== undefined &&
    verify('sha384', bytes.subarray(0, SIGNED_BYTES), { key: publicKey, dsaEncoding: 'ieee-p1363' }, signature)
  if (!warm() || !anew() || !bareSignature()) throw new Error('the good report is not accepted')
  const rates = interleave(rounds, { warm, bareSignature, anew })
  return { ...rates, ratio: rates.bareSignature.perSecond / rates.warm.perSecond }
}

async function benchTpm(rounds: number): Promise<EvidenceFigures['tpm']> {
  const text = Buffer.from(read('tpm/trustee/az-snp-vtpm/evidence-v1.json')).toString('utf8')
  const collateral = readCollateral([file('snp/openpcc/sev_certificates/test_amd_milan_crl.pem')])
  const nonce = new Uint8Array(Buffer.from('challenge'))
  const context: AppraisalContext = { at: new Date('2025-08-01T00:00:00Z'), nonce, anchors: [], collateral }
  const azure = (): boolean => isAffirmed(() => appraiseAzure(parseAzureEvidence(JSON.parse(text)), context, 'tpm'))
  const log = read('tpm/go-eventlog/eventlogs/tpm/ubuntu-1804-amd-sev.bin')
  const eventLog = (): boolean => replayEventLog(nodeCrypto, parseEventLog(log), 'sha256').size > 0
  if (!azure() || !eventLog()) throw new Error('the good evidence is not accepted')
  const costliest = costliestLog()
  const holds = Array.from({ length: rounds }, () => {
    const start = process.cpuUsage()
    appraiseEventLog(parseEventLog(costliest))
    const { user, system } = process.cpuUsage(start)
    return (user + system) / 1000
  })
  return {
    ...interleave(rounds, { azure, eventLog }),
    events: parseEventLog(log).events.length,
    costliestLogMs: median(holds),
    longestHoldMs: await longestHold(rounds, costliest),
  }
}

/** Median over the rounds of the longest time between two turns of the event loop. */
async function longestHold(rounds: number, bytes: Uint8Array): Promise<number> {
  const holds: number[] = []
  for (let round = 0; round < rounds; round++) {
    let [longest, last, running] = [0, performance.now(), true]
    const look = (): void => {
      const now = performance.now()
      longest = Math.max(longest, now - last)
      last = now
      if (running) setImmediate(look)
    }
    setImmediate(look)
    const log = await inSlices(eventLogSteps(bytes))
    await inSlices(replaySteps(nodeCrypto, log, 'sha256'))
    await inSlices(describeSteps(log))
    running = false
    holds.push(longest)
  }
  return median(holds)
}

/** Turns of each in one order and then in the other, so that what slows the machine down slows all. */
function interleave<Name extends string>(
  rounds: number,
  programs: Readonly<Record<Name, () => boolean>>,
): Readonly<Record<Name, Rate>> {
  const names = Object.keys(programs) as Name[]
  const turns = Object.fromEntries(names.map((name) => [name, [] as number[]])) as Record<Name, number[]>
  for (const name of names) turn(programs[name], WARM_UP_MS)
  for (let round = 0; round < rounds; round++) {
    for (const name of round % 2 === 0 ? names : names.toReversed()) turns[name].push(turn(programs[name], TURN_MS))
  }
  const rates = names.map((name) => [name, { perSecond: median(turns[name]), turns: turns[name] }])
  return Object.fromEntries(rates) as Record<Name, Rate>
}

/** How often in a second of processor time, which is the same on a machine that does other things as well. */
function turn(program: () => boolean, milliseconds: number): number {
  const start = process.cpuUsage()
  let count = 0
  let elapsed = 0
  while (elapsed < milliseconds) {
    if (!program()) throw new Error('a good verdict became a bad one')
    count++
    const { user, system } = process.cpuUsage(start)
    elapsed = (user + system) / 1000
  }
  return (1000 * count) / elapsed
}

/** The whole command, from a process that does not exist yet, beside a Node that does nothing. */
function coldStarts(): Readonly<Record<string, number>> {
  const folder = mkdtempSync(join(tmpdir(), 'caisson-bench-'))
  try {
    const collateral = join(folder, 'collateral')
    writeFileSync(collateral, read('tdx/dcap-qvl/sample/tdx_quote_collateral.json'))
    const path = (name: string): string => new URL(name, VECTORS).pathname
    const cli = new URL('../cli/caisson.mjs', import.meta.url).pathname
    const verifyWords = (name: string, tee: string, at: string): string[] => [
      cli,
      ...['evidence', 'verify', path(name), '--tee', tee, '--collateral', folder, '--at', at, '--json'],
    ]
    const commands: Readonly<Record<string, readonly string[]>> = {
      'node that does nothing': ['-e', '0'],
      snp: verifyWords('snp/trustee/deps/verifier/test_data/snp/test-vlek-report.bin', 'snp', '2025-08-01'),
      tdx: verifyWords('tdx/dcap-qvl/sample/tdx_quote', 'tdx', '2025-07-01'),
      tpm: verifyWords('tpm/trustee/az-snp-vtpm/evidence-v1.json', 'tpm', '2025-08-01'),
    }
    const times = Object.fromEntries(Object.keys(commands).map((name) => [name, [] as number[]]))
    for (let round = 0; round < COLD_ROUNDS; round++) {
      for (const [name, words] of Object.entries(commands)) times[name]?.push(coldStart(words))
    }
    return Object.fromEntries(Object.entries(times).map(([name, values]) => [name, median(values)]))
  } finally {
    if (existsSync(folder)) rmSync(folder, { recursive: true })
  }
}

function coldStart(words: readonly string[]): number {
  const start = performance.now()
  try {
    execFileSync(process.execPath, words, { stdio: 'pipe', env: { ...process.env, NODE_EXTRA_CA_CERTS: undefined } })
  } catch (error) {
    // A verdict that is not affirming ends with 1, and is a verdict all the same.
    if ((error as { status?: number }).status !== 1) throw error
  }
  return performance.now() - start
}

export function printEvidence({ rounds, tdx, snp, tpm, coldStartMs }: EvidenceFigures): void {
  const rate = ({ perSecond }: Rate): string => `${perSecond.toFixed(0)}/s`
  const { tampered } = tdx
  console.log(
    `TDX verdicts (median of ${rounds} turns): ${rate(tdx.anew)} with everything verified anew (authorities’ certificates are read once), ${rate(tdx.warm)} with chain and ` +
      `collateral already verified; @phala/dcap-qvl ${rate(tdx.peer)}`,
  )
  console.log(
    `  ${tdx.anewRatio.toFixed(1)}× and ${tdx.warmRatio.toFixed(1)}× dcap-qvl (targets at least 3 and 8); ` +
      `equal verdicts on ${tampered.equal} of ${tampered.quotes} tampered quotes, ` +
      `${tampered.onlyPeerAccepts} refused by ours alone, ${tampered.onlyOursAccepts} by the peer alone`,
  )
  console.log(
    `SNP verdicts: ${rate(snp.warm)} with a known chain, ${rate(snp.anew)} anew; bare signature check ${rate(snp.bareSignature)}`,
  )
  console.log(`  a verdict takes ${snp.ratio.toFixed(2)}× its bare signature check (target at most 1.3)`)
  console.log(
    `TPM: Azure’s evidence with both halves ${rate(tpm.azure)}; event log of ${tpm.events} events read and replayed ${rate(tpm.eventLog)}`,
  )
  console.log(
    `the costliest event log within the limits takes ${tpm.costliestLogMs.toFixed(0)} ms in one go; ` +
      `in the verifier service it keeps the event loop for ${tpm.longestHoldMs.toFixed(1)} ms at a time`,
  )
  const cold = Object.entries(coldStartMs).map(([name, ms]) => `${name} ${ms.toFixed(0)} ms`)
  console.log(`cold start of the command: ${cold.join(', ')}`)
}
