/** Guests with real TPMs, their verifier, and a host between the two. */
import { json } from 'node:stream/consumers'
import type { ExecutionContext } from 'ava'
import { Attester } from '#attestation/client/attester'
import type { EvidenceSource } from '#attestation/client/evidence-source'
import { tpmEvidenceSource } from '#attestation/client/tpm-evidence-source'
import { VerifierRefusal } from '#attestation/client/verifier-http'
import type { AttestationRecord } from '#attestation/store/attestation-log'
import type { VerifierConfig } from '#attestation/verifier/verifier'
import type { HttpRequest, HttpResponse, HttpTransport } from '#protocol/http-transport'
import { nodeCrypto } from '#protocol/node/crypto'
import type { AdmittedImage } from '#protocol/tpm-messages'
import { referenceFor } from './reference.ts'
import { type Site, startSite } from './site.ts'
import type { TestCa, TestTpm } from './software-tpm.ts'

export const INITDATA: Buffer = Buffer.from('version = "0.1.0"\nalgorithm = "sha256"\n[data]\n"policy.yaml" = "x"\n')
export const IMAGE: AdmittedImage = {
  container: 'web',
  manifest: `sha256:${'1'.repeat(64)}`,
  config: `sha256:${'2'.repeat(64)}`,
  diffIds: [`sha256:${'3'.repeat(64)}`],
}

export async function siteTrusting(
  t: ExecutionContext,
  trusted: TestCa,
  config: Partial<VerifierConfig> = {},
): Promise<Site> {
  const trust = { trustedTpmCas: [trusted.rootPem], tpmIntermediates: [trusted.intermediatePem] }
  const started = await startSite(t, { ...trust, ...config })
  await started.admin.putReference(referenceFor('guest-1', { initdata: INITDATA }))
  await started.admin.putResource('default/tls/key', Buffer.from('tls key'))
  await started.admin.putResource('default/tls/late', Buffer.from('late'), {
    kind: 'images',
    manifests: [IMAGE.manifest],
  })
  return started
}

export function attesterOf(
  served: Site,
  tpm: TestTpm,
  options: { http?: HttpTransport; evidence?: EvidenceSource } = {},
): Attester {
  return new Attester({
    http: options.http ?? served.http,
    crypto: nodeCrypto,
    evidence: options.evidence ?? tpmEvidenceSource({ tpm, crypto: nodeCrypto }),
    url: served.verifier.url,
    now: () => new Date(),
    backOff: { attempts: 1, firstDelayMs: 1, maxDelayMs: 1 },
  })
}

/** The guest's connection in the hands of the host: may change each request's URL, headers and body. */
export class HostileTransport implements HttpTransport {
  readonly sent: HttpRequest[] = []
  readonly #inner: HttpTransport
  readonly #change: (request: HttpRequest, sent: readonly HttpRequest[]) => HttpRequest

  constructor(
    inner: HttpTransport,
    change: (request: HttpRequest, sent: readonly HttpRequest[]) => HttpRequest = (r) => r,
  ) {
    this.#inner = inner
    this.#change = change
  }

  request(request: HttpRequest): Promise<HttpResponse> {
    const changed = this.#change(request, this.sent)
    this.sent.push(changed)
    return this.#inner.request(changed)
  }

  async close(): Promise<void> {}
}

/** Changes the JSON of answers on their way. */
export function changingAnswers(inner: HttpTransport, change: (answer: Answer) => void): HostileTransport {
  return new HostileTransport(inner, (request) => {
    if (!request.url.endsWith('/attest') || !(request.body instanceof Uint8Array)) return request
    const answer: Answer = JSON.parse(Buffer.from(request.body).toString())
    change(answer)
    return { ...request, body: Buffer.from(JSON.stringify(answer)) }
  })
}

export interface Answer {
  'init-data': { body: string }
  'runtime-data': { nonce: string; 'tee-pubkey': object }
  'tee-evidence': {
    primary_evidence: {
      ak_public: string
      tpm_quote: { message: string; signature: string; pcrs: string[] }
      event_log: string
      credential_secret: string
      images?: object[]
    }
  }
}

/** The attestation must be refused with this code; returns the tenant's record of it. */
export async function refused(
  t: ExecutionContext,
  served: Site,
  work: Promise<unknown>,
  code: string,
): Promise<AttestationRecord | undefined> {
  const error = await t.throwsAsync(work, { instanceOf: VerifierRefusal })
  t.is(error?.refusal.code, code)
  const records = await served.admin.explain(error?.refusal.correlationId ?? '')
  const record = records.find(({ id }) => id === error?.refusal.correlationId)
  t.is(record?.verdict, 'refused')
  t.is(record?.code, code)
  return record
}

export async function codeOf(served: Site, request: HttpRequest): Promise<unknown> {
  const { body } = await served.http.request(request)
  const problem = await json(body)
  return typeof problem === 'object' && problem !== null && 'code' in problem ? problem.code : undefined
}
