/**
 * How long one answer, whatever is in it, keeps the service from everything else in one go. Measured as the time that the
 * thread computed between two turns of the event loop, which is the same on a machine that others use; and compared with
 * what the reading of a text costs that is refused, which is the same on a slow one.
 */
import test, { type ExecutionContext } from 'ava'
import { parse } from 'smol-toml'
import { createTeeKeyPair } from '#attestation/client/sealed-resource'
import { NO_SOURCE } from '#attestation/collateral/source'
import { HardwareEvidenceKind } from '#attestation/verifier/hardware-evidence'
import { hardwarePlatforms } from '#attestation/verifier/hardware-platforms'
import { RecordedError } from '#attestation/verifier/refusal-record'
import { encodePem } from '#attestation/x509/pem'
import { toBase64 } from '#protocol/encoding'
import { CaissonError } from '#protocol/errors'
import { encodeKbsAttestation } from '#protocol/kbs-messages'
import { makeReport, newVek, vekDer } from '../../fixtures/snp/amd-like.ts'
import { certifyPlatform, createIntelPki, pemChain } from '../../fixtures/tdx/intel-pki.ts'
import { makeQuote } from '../../fixtures/tdx/quote-maker.ts'
import { serveTenant } from './served-tenant.ts'

const MIB = 1024 * 1024
const POLICIES = ['a', 'b', 'c', 'd']
const HEAD = 'version = "0.1.0"\nalgorithm = "sha256"\n'
const NAMES = Array.from({ length: 100_000 }, (_, index) => `k${index.toString(36)}`)
/** As many keys as fit. */
const MANY_KEYS = `${HEAD}[data]\n${NAMES.map((name) => `${name}=1`).join('\n')}\n`

const { publicKey: teePublicKey } = await createTeeKeyPair()
const pki = createIntelPki()
const pck = certifyPlatform({ issuer: pki.platformCa, platformInstance: true })
const quote = toBase64(
  makeQuote({ pckKey: pck.key, certification: { type: 5, data: pemChain(pck, pki.platformCa, pki.root) } }),
)

/** Milliseconds that this thread has computed. */
function computed(): number {
  const { user, system } = process.threadCpuUsage()
  return (user + system) / 1000
}

/** The longest computation between two turns of the event loop until the work ends, milliseconds. */
async function longestHoldOf<T>(work: () => Promise<T>): Promise<{ result: T; holdMs: number }> {
  let holdMs = 0
  let before = computed()
  let running = true
  const look = (): void => {
    const now = computed()
    holdMs = Math.max(holdMs, now - before)
    before = now
    if (running) setImmediate(look)
  }
  setImmediate(look)
  const result = await work().finally(() => {
    running = false
  })
  look()
  return { result, holdMs }
}

async function verifier(t: ExecutionContext) {
  const kinds = hardwarePlatforms().flatMap((platform) =>
    platform.tees.map(
      (tee) => new HardwareEvidenceKind({ platform, tee, collateral: NO_SOURCE, now: () => new Date() }),
    ),
  )
  const { kbs, directory, database, clock } = await serveTenant(t, kinds)
  const { policies } = (await directory.find()).admin.options
  const document = 'apiVersion: caisson/v1\nkind: AppraisalPolicy\n'
  await database.transaction(async (sql) => {
    for (const id of POLICIES) await policies.put(sql, { id, document }, new Date(clock.now))
  })
  /** The code of the refusal; `primary` and `more` are JSON. */
  return async (tee: string, { primary, initdataToml, more = '' }: Answer): Promise<string> => {
    const challenge = await kbs.challenge(Buffer.from(`{"version":"0.4.0","tee":"${tee}","extra-params":""}`))
    const { nonce }: { nonce: string } = JSON.parse(challenge.content)
    const whole = encodeKbsAttestation({
      nonce,
      teePublicKey,
      primaryEvidence: 'PRIMARY',
      additionalEvidence: '',
      ...(initdataToml === undefined ? {} : { initdataToml }),
    })
    const body = Buffer.from(`{${more}${whole.slice(1)}`.replace('"PRIMARY"', () => primary))
    try {
      await kbs.attest(challenge.cookie, body)
    } catch (error) {
      if (error instanceof RecordedError && error.cause instanceof CaissonError) return error.cause.code
      throw error
    }
    return 'accepted'
  }
}

interface Answer {
  readonly primary: string
  readonly initdataToml?: string
  /** Further members. */
  readonly more?: string
}

/** Strangers need no more than this to have everything else of their answer read. */
const chip = { tcb: new Uint8Array(8), chipId: new Uint8Array(64).fill(1) }
const report = JSON.stringify({ attestation_report: toBase64(makeReport(chip)), cert_chain: [] })

/** All for the same chip, each of another key. */
function manyCertificates(): string {
  const pem = Array.from({ length: 16 }, () =>
    encodePem({
      label: 'CERTIFICATE',
      bytes: vekDer({ kind: 'vcek', product: 'Milan', ...chip, hwid: chip.chipId, key: newVek().publicKey }),
    }),
  ).join('')
  const chain = Array.from({ length: 16 }, () => ({ cert_type: 'VCEK', data: pem }))
  return JSON.stringify({ ...JSON.parse(report), cert_chain: chain })
}

const runtimeLog = (lines: string): string =>
  JSON.stringify({ quote, aa_eventlog: `INIT sha384/${'0'.repeat(96)}\n${lines}` })

const ANSWERS: Readonly<Record<string, { tee: string; code: string; answer: () => Answer }>> = {
  'initdata of as many keys as fit': {
    tee: 'snp',
    code: 'ERR_INITDATA_MALFORMED',
    answer: () => ({ primary: report, initdataToml: MANY_KEYS }),
  },
  'initdata of one key with as many dots as fit': {
    tee: 'snp',
    code: 'ERR_INITDATA_MALFORMED',
    answer: () => ({ primary: report, initdataToml: `${HEAD}x${'.a'.repeat(MIB / 2 - 100)} = 1\n` }),
  },
  'initdata whose keys follow a string that ends with marks of its own': {
    tee: 'snp',
    code: 'ERR_INITDATA_MALFORMED',
    answer: () => ({ primary: report, initdataToml: `x = """a"""""\n${MANY_KEYS}` }),
  },
  'the largest initdata with a policy as it is written': {
    tee: 'snp',
    code: 'ERR_NONCE_MISMATCH',
    answer: () => ({
      primary: report,
      initdataToml: `${HEAD}[data]\n"policy.yaml" = '''\n${'  - { name: a, image: b } # c\n'.repeat(MIB / 32)}'''\n`,
    }),
  },
  'the largest initdata in escapes': {
    tee: 'snp',
    code: 'ERR_NONCE_MISMATCH',
    answer: () => ({
      primary: report,
      initdataToml: `${HEAD}[data]\n"policy.yaml" = "${'\\"'.repeat(MIB / 3)}"\n`,
    }),
  },
  'as many certificates as are read': {
    tee: 'snp',
    code: 'ERR_NONCE_MISMATCH',
    answer: () => ({ primary: manyCertificates() }),
  },
  'evidence of as many members as fit': {
    tee: 'tdx',
    code: 'ERR_KBS_MESSAGE',
    answer: () => ({ primary: `{${NAMES.map((name) => `"${name}":"........"`).join(',')}}` }),
  },
  'evidence of as many arrays as fit': {
    tee: 'tdx',
    code: 'ERR_KBS_MESSAGE',
    answer: () => ({ primary: `[${'[],'.repeat((2 * MIB) / 3 - 500)}[]]` }),
  },
  'evidence of as many numbers as fit': {
    tee: 'tdx',
    code: 'ERR_KBS_MESSAGE',
    answer: () => ({ primary: `[${'0,'.repeat(MIB - 500)}0]` }),
  },
  'further members, as many as fit': {
    tee: 'snp',
    code: 'ERR_KBS_MESSAGE',
    answer: () => ({ primary: report, more: NAMES.map((name) => `"${name}":0,`).join('') }),
  },
  'bytes as numbers': {
    tee: 'tdx',
    code: 'ERR_QUOTE',
    answer: () => ({ primary: `{"quote":[${'255,'.repeat(MIB / 4 - 500)}0]}` }),
  },
  'bytes with white space between': {
    tee: 'tdx',
    code: 'ERR_QUOTE',
    answer: () => ({ primary: `{"quote":"${'A '.repeat(MIB - 500)}"}` }),
  },
  'a log of as many empty lines as fit': {
    tee: 'tdx',
    code: 'ERR_RUNTIME_LOG',
    answer: () => ({ primary: runtimeLog(`${'\n'.repeat(MIB / 2)}x`) }),
  },
}

const started = computed()
parse(MANY_KEYS)
/** What the verifier is spared by refusing such a text, and half of it. */
const SPARED_MS = (computed() - started) / 2

for (const [name, { tee, code, answer }] of Object.entries(ANSWERS)) {
  test.serial(`an answer with ${name} keeps nobody waiting for long`, async (t) => {
    const attest = await verifier(t)
    const hostile = answer()
    await attest(tee, { primary: '{}' }) // compiled
    const { result, holdMs } = await longestHoldOf(() => attest(tee, hostile))
    t.true(holdMs < SPARED_MS, `${holdMs.toFixed(0)} ms, ${SPARED_MS.toFixed(0)} ms allowed`)
    t.is(result, code)
  })
}
