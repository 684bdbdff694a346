/**
 * Quotes of a real (software) TPM, made by tpm2-tools with keys and banks of every kind, and judged from the files that the
 * tools write.
 */
import { readFileSync } from 'node:fs'
import test, { type ExecutionContext } from 'ava'
import { NO_COLLATERAL } from '#attestation/evidence/collateral'
import type { AppraisalContext } from '#attestation/evidence/context'
import { type EvidenceVerdict, verdictOf } from '#attestation/evidence/verdict'
import { appraiseTpm } from '#attestation/tpm/appraise-evidence'
import { parseEventLog } from '#attestation/tpm/parse/event-log'
import { parseTpmEvidence } from '#attestation/tpm/parse/evidence'
import { parseCertificate } from '#attestation/x509/certificate'
import { fromHex, toBase64, toHex } from '#protocol/encoding'
import { MalformedError } from '#protocol/errors'
import { certifyKey, startToolTpm, type ToolTpm } from '#test/fixtures/tpm/tpm2-tools'

const NONCE = '0102030405060708'
const LOG = new Uint8Array(
  readFileSync(new URL('../../vectors/tpm/go-eventlog/eventlogs/tpm/ubuntu-1804-amd-sev.bin', import.meta.url)),
)

let tpm: ToolTpm
test.before(async () => {
  tpm = await startToolTpm()
  await tpm.tool('tpm2_createek', '-c', 'ek.ctx', '-G', 'rsa', '-u', 'ek.pub')
  const extensions = parseEventLog(LOG).events.map(
    ({ pcr, digests }) =>
      `${pcr}:${Object.entries(digests)
        .map(([bank, digest]) => `${bank}=${toHex(digest)}`)
        .join(',')}`,
  )
  await tpm.tool('tpm2_pcrextend', ...extensions)
})
test.after.always(() => tpm[Symbol.asyncDispose]())

interface Quote {
  readonly algorithm: string
  readonly scheme: string
  readonly hash: string
  readonly pcrs: string
  readonly format?: 'plain' | 'tss'
  readonly pcrFormat?: 'serialized' | 'values'
}

let count = 0
/** As `{ message, signature, public_key, pcrs }`; the key is also in `name`.pem. */
async function quote(options: Quote): Promise<{ name: string; evidence: Record<string, string> }> {
  const { algorithm, scheme, hash, pcrs, format = 'tss', pcrFormat = 'serialized' } = options
  const name = `q${++count}`
  const key = ['-G', algorithm, '-s', scheme, '-g', hash]
  await tpm.tool('tpm2_createak', '-C', 'ek.ctx', '-c', `${name}.ctx`, ...key, '-u', `${name}.pem`, '-f', 'pem')
  await tpm.tool('tpm2_readpublic', '-c', `${name}.ctx`, '-f', 'tss', '-o', `${name}.tss`)
  await tpm.tool(
    'tpm2_quote',
    ...['-c', `${name}.ctx`, '-l', pcrs, '-q', NONCE, '-g', hash, '--scheme', scheme, '-f', format],
    ...['-m', `${name}.msg`, '-s', `${name}.sig`, '-o', `${name}.pcrs`, '-F', pcrFormat],
  )
  const base64 = async (suffix: string): Promise<string> => toBase64(await tpm.file(`${name}.${suffix}`))
  return {
    name,
    evidence: {
      message: await base64('msg'),
      signature: await base64('sig'),
      public_key: await base64('tss'),
      pcrs: await base64('pcrs'),
    },
  }
}

function judge(evidence: Record<string, string | string[]>, context: Partial<AppraisalContext> = {}): EvidenceVerdict {
  return verdictOf(
    appraiseTpm(parseTpmEvidence(evidence), {
      at: new Date(),
      nonce: fromHex(NONCE, 'nonce'),
      collateral: NO_COLLATERAL,
      anchors: [],
      ...context,
    }),
  )
}

function codes({ reasons }: EvidenceVerdict): string[] {
  return reasons.map(({ code }) => code)
}

const kinds: readonly (Quote & { readonly weak?: true })[] = [
  { algorithm: 'rsa', scheme: 'rsassa', hash: 'sha256', pcrs: 'sha256:0,1,2,3,4,5,6,7,8,9' },
  { algorithm: 'rsa', scheme: 'rsassa', hash: 'sha384', pcrs: 'sha384:0,23', pcrFormat: 'values' },
  { algorithm: 'rsa', scheme: 'rsassa', hash: 'sha512', pcrs: 'sha512:1,2,3', format: 'plain' },
  { algorithm: 'rsa', scheme: 'rsapss', hash: 'sha256', pcrs: 'sha1:0,1+sha256:2,3+sha384:4,16+sha512:17,18' },
  { algorithm: 'rsa', scheme: 'rsapss', hash: 'sha384', pcrs: 'sha256:0', format: 'plain', pcrFormat: 'values' },
  { algorithm: 'ecc', scheme: 'ecdsa', hash: 'sha256', pcrs: 'sha256:0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,23' },
  { algorithm: 'ecc', scheme: 'ecdsa', hash: 'sha256', pcrs: 'sha384:7', format: 'plain' },
  { algorithm: 'ecc384', scheme: 'ecdsa', hash: 'sha384', pcrs: 'sha384:0,1,2,3,4,5,6,7', format: 'plain' },
  { algorithm: 'ecc384', scheme: 'ecdsa', hash: 'sha384', pcrs: 'sha256:0,7+sha384:0,7' },
  { algorithm: 'rsa', scheme: 'rsassa', hash: 'sha1', pcrs: 'sha256:0', weak: true },
  { algorithm: 'ecc', scheme: 'ecdsa', hash: 'sha256', pcrs: 'sha1:0,1,2,3', weak: true },
]

for (const { weak, ...kind } of kinds) {
  const { algorithm, scheme, hash, pcrs, format = 'tss', pcrFormat = 'serialized' } = kind
  test.serial(
    `a quote of ${pcrs} by ${algorithm} with ${scheme}, ${hash} (${format}, ${pcrFormat}) holds`,
    async (t) => {
      const { evidence, name } = await quote(kind)
      const verdict = judge(evidence)
      t.deepEqual(codes(verdict), weak === true ? ['weak_hash', 'ak_unbound'] : ['ak_unbound'])
      t.is(verdict.verdict, 'warning')
      t.is(verdict.claims.report_data, NONCE)
      t.deepEqual(
        Object.entries(verdict.claims.pcrs ?? {}).flatMap(
          ([bank, values]) => `${bank}:${Object.keys(values).join(',')}`,
        ),
        pcrs.split('+'),
      )
      t.deepEqual(codes(judge({ ...evidence, public_key: await tpm.text(`${name}.pem`) })), codes(verdict))
      neverAffirmed(t, evidence)
    },
  )
}

/** Each part with a bit changed here and there: refused, or (unused bytes of the tools' PCR files) without any effect. */
function neverAffirmed(t: ExecutionContext, evidence: Record<string, string>): void {
  const { claims } = judge(evidence)
  for (const part of ['message', 'signature', 'pcrs']) {
    const bytes = Buffer.from(evidence[part] ?? '', 'base64')
    const step = Math.max(1, Math.floor(bytes.length / 40))
    for (let at = 0; at < bytes.length; at += step) {
      const changed = Buffer.from(bytes)
      changed[at] = (changed[at] ?? 0) ^ 0x40
      const verdict = judgeOrRefuse({ ...evidence, [part]: changed.toString('base64') })
      if (verdict?.verdict === 'warning') {
        t.is(part, 'pcrs', `${part} at ${at}`)
        t.deepEqual(verdict.claims, claims)
      } else t.not(verdict?.verdict, 'affirming')
    }
  }
  t.deepEqual(codes(judge(evidence, { nonce: Uint8Array.of(1) })).slice(0, 1), ['nonce_mismatch'])
}

function judgeOrRefuse(evidence: Record<string, string>): EvidenceVerdict | undefined {
  try {
    return judge(evidence)
  } catch (error) {
    if (error instanceof MalformedError) return undefined
    throw error
  }
}

test.serial(
  'a certificate of the attestation key by a CA that the policy names makes the verdict affirming',
  async (t) => {
    const { evidence, name } = await quote({ algorithm: 'ecc', scheme: 'ecdsa', hash: 'sha256', pcrs: 'sha256:0,4,7' })
    const { root, certificate } = await certifyKey(tpm, name, { usage: '2.23.133.8.3' })
    const anchors = [parseCertificate(root)]
    const certified = { ...evidence, certificates: [certificate] }
    const verdict = judge(certified, { anchors })
    t.is(verdict.verdict, 'affirming', JSON.stringify(verdict.reasons))
    t.true(verdict.claims.ak_bound)
    t.is(
      judge(
        {
          message: evidence.message ?? '',
          signature: evidence.signature ?? '',
          pcrs: evidence.pcrs ?? '',
          certificates: [certificate],
        },
        { anchors },
      ).verdict,
      'affirming',
    )
    t.deepEqual(codes(judge(certified)), ['ak_unbound'])
    const later = new Date(Date.now() + 9 * 365 * 86_400_000)
    t.deepEqual(codes(judge(certified, { anchors, at: later })), ['ak_certificate_expired'])
    const { evidence: others } = await quote({
      algorithm: 'ecc',
      scheme: 'ecdsa',
      hash: 'sha256',
      pcrs: 'sha256:0,4,7',
    })
    t.deepEqual(codes(judge({ ...others, certificates: [certificate] }, { anchors })), ['ak_unbound'])
    t.deepEqual(codes(judge({ ...others, public_key: evidence.public_key ?? '' }, { anchors })).slice(0, 1), [
      'quote_signature',
    ])
  },
)

test.serial('a certificate for another purpose by a trusted CA binds no key', async (t) => {
  const { evidence, name } = await quote({ algorithm: 'ecc', scheme: 'ecdsa', hash: 'sha256', pcrs: 'sha256:0' })
  const { root, certificate } = await certifyKey(tpm, name, { usage: 'serverAuth' })
  const verdict = judge({ ...evidence, certificates: [certificate] }, { anchors: [parseCertificate(root)] })
  t.deepEqual(codes(verdict), ['ak_unbound'])
})

test.serial('the firmware’s log that came with a quote is replayed to it and read', async (t) => {
  const kind = {
    algorithm: 'ecc',
    scheme: 'ecdsa',
    hash: 'sha256',
    pcrs: 'sha1:0,1,2,3,4,5,6,7+sha256:0,1,2,3,4,5,6,7,8,9+sha384:4,7',
  }
  const { evidence } = await quote(kind)
  const verdict = judge({ ...evidence, event_log: toBase64(LOG) })
  t.deepEqual(codes(verdict), ['ak_unbound'])
  t.is(verdict.claims.secure_boot, false)
  t.like(verdict.claims.boot_applications, { length: 2 })
  t.regex(JSON.stringify(verdict.claims.kernel_cmdline), /vmlinuz.*root=/)
  const other = LOG.slice()
  other[200] = (other[200] ?? 0) ^ 1
  t.is(judge({ ...evidence, event_log: toBase64(other) }).verdict, 'contraindicated')
})
