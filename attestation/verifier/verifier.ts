/**
 * The verifier service, put together: store, keys, evidence, tenants, HTTP. One call starts it, `close()` ends it.
 */
import type { JWK } from 'jose'
import { AnswerStore } from '../collateral/answer-store.ts'
import { CollateralService } from '../collateral/collateral-service.ts'
import { VendorClient } from '../collateral/vendor-client.ts'
import type { Endpoints } from '../evidence/online/fetch-collateral.ts'
import { parseReferenceDocument } from '../measure/reference-document.ts'
import type { Database } from '../store/database.ts'
import { type KeyWrapper, LocalKeyWrapper } from '../store/key-wrapper.ts'
import { openDatabase } from '../store/open-database.ts'
import { sealPlainValues } from '../store/seal-plain-values.ts'
import { Sealing } from '../store/sealing.ts'
import { TenantStore } from '../store/tenant-store.ts'
import { parseCertificate } from '../x509/certificate.ts'
import { AdminAuthenticator } from './admin/authenticator.ts'
import { HardwareEvidenceKind } from './hardware-evidence.ts'
import { hardwarePlatforms } from './hardware-platforms.ts'
import { listen, type RunningListener, type TlsProfile } from './http-listener.ts'
import { Metrics } from './metrics.ts'
import { type RequestLogLine, requestLogLine } from './request-log.ts'
import { createRouter } from './routes.ts'
import { TenantDirectory } from './tenant-directory.ts'
import { TpmEvidenceKind } from './tpm-evidence.ts'

export interface VerifierConfig {
  /** SQLite file, created when absent, readable by its owner alone; or `postgresql://…`, for several replicas. */
  readonly storePath: string
  /** 32 bytes that seal the store's secrets, or what wraps its data keys elsewhere. Lost, the secrets are lost. */
  readonly storeKey: Uint8Array | KeyWrapper
  /** Port 0: any free port. Default 127.0.0.1, port 0. */
  readonly listen?: { readonly host: string; readonly port: number }
  /** Absent: plain HTTP, on loopback only. */
  readonly tls?: { readonly certificatePem: string; readonly privateKeyPem: string }
  /** Default "intermediate". */
  readonly tlsProfile?: TlsProfile
  /** Of guests and administrators, together; more are closed as they come. Default 512. */
  readonly maxConnections?: number
  /**
   * Public Ed25519 JWKs of the service's administrators, see `createAdminKey`. Without any, nothing but what tenants'
   * own administrators may do can be administered.
   */
  readonly adminKeys: readonly JWK[]
  /**
   * PEM certificates of the CAs whose TPMs are believed. Default none: then every TPM is refused, because whoever holds
   * the CA's key can make a TPM that says anything. Naming the CA of software TPMs is the tenant's decision.
   */
  readonly trustedTpmCas?: readonly string[]
  /** PEM certificates between those roots and the TPMs' own; never taken from a peer. */
  readonly tpmIntermediates?: readonly string[]
  /** Whom to ask for collateral of SNP and TDX. Default: nobody; evidence brings it, or it is imported. */
  readonly collateralEndpoints?: Endpoints
  /** A question to them, with its answer, milliseconds. Default 10000. */
  readonly collateralTimeoutMs?: number
  /** PEM of roots besides AMD's and Intel's whose collateral is kept. */
  readonly trustedCollateralRoots?: readonly string[]
  /** Where metrics are served, on loopback, as plain HTTP: GET /metrics. Default: nowhere. */
  readonly metrics?: { readonly host: string; readonly port: number }
  /** Told of each request when it is answered. Default: nothing happens. */
  readonly onRequest?: (line: RequestLogLine) => void
  /** `iss` of the default tenant's tokens, and how those of other tenants begin. Default "caisson-verifier". */
  readonly issuer?: string
  /** Milliseconds. Default 300000. */
  readonly tokenLifetimeMs?: number
  /** From challenge to answer, milliseconds. Default 300000. */
  readonly sessionLifetimeMs?: number
  /** Of pods' certificates, milliseconds: how long one outlives what revoked it. Default one hour. */
  readonly identityLifetimeMs?: number
  /** Age at which signing and sealing keys are replaced, milliseconds. Default one day. */
  readonly keyRotationMs?: number
  /** Attestation records kept per tenant. Default: the tenant's setting. */
  readonly keepAttestations?: number
  /** Milliseconds until a request must have arrived completely. Default 20000. */
  readonly requestTimeoutMs?: number
  readonly now?: () => Date
  /** Told about services that did not answer, and answers that were not kept. Default: nothing happens. */
  readonly onCollateralProblem?: (url: string, error: unknown) => void
  /** Told about internal failures (5xx answers); nothing secret in it. Default: nothing happens. */
  readonly onInternalError?: (correlationId: string, error: unknown) => void
}

export interface RunningVerifier {
  /** Without the `/kbs/v0` prefix: "https://127.0.0.1:41234". */
  readonly url: string
  /** Undefined without `metrics`. */
  readonly metricsUrl: string | undefined
  /** Replaces the default tenant's token signing key at once; tokens already issued stay valid until they expire. */
  rotateTokenKey(): Promise<void>
  close(): Promise<void>
}

const MINUTE_MS = 60_000
const DEFAULTS = {
  listen: { host: '127.0.0.1', port: 0 },
  issuer: 'caisson-verifier',
  tokenLifetimeMs: 5 * MINUTE_MS,
  sessionLifetimeMs: 5 * MINUTE_MS,
  identityLifetimeMs: 60 * MINUTE_MS,
  keyRotationMs: 24 * 60 * MINUTE_MS,
} as const

/**
 * Starts the service. Errors: ERR_STORE_OPEN, ERR_STORE_VERSION, ERR_STORE_KEY, ERR_TLS_REQUIRED, ERR_LISTEN,
 * ERR_ADMIN_KEY, and those of unreadable CA certificates.
 */
export async function startVerifier(config: VerifierConfig): Promise<RunningVerifier> {
  const settings = { ...DEFAULTS, ...config }
  const now = config.now ?? (() => new Date())
  const authenticator = new AdminAuthenticator({ keys: config.adminKeys, now })
  const tpm = new TpmEvidenceKind({
    roots: config.trustedTpmCas ?? [],
    intermediates: config.tpmIntermediates ?? [],
    now,
  })
  const wrapper = config.storeKey instanceof Uint8Array ? new LocalKeyWrapper(config.storeKey) : config.storeKey
  const database = await openDatabase(config.storePath)
  try {
    const sealing = await Sealing.open(database, wrapper, now())
    await sealPlainValues(database, sealing)
    const tenants = new TenantStore(database)
    const answers = new AnswerStore(database)
    const collateral = new CollateralService({
      store: answers,
      client: config.collateralEndpoints === undefined ? undefined : vendorClient(config, now),
      ...(config.collateralEndpoints === undefined ? {} : { endpoints: config.collateralEndpoints }),
      anchors: (config.trustedCollateralRoots ?? []).map((pem) => parseCertificate(pem)),
      now,
      ...(config.onCollateralProblem === undefined ? {} : { onProblem: config.onCollateralProblem }),
    })
    const hardware = hardwarePlatforms().flatMap((platform) =>
      platform.tees.map((tee) => new HardwareEvidenceKind({ platform, tee, collateral, now })),
    )
    const { issuer, tokenLifetimeMs, sessionLifetimeMs, identityLifetimeMs, keyRotationMs } = settings
    const directory = new TenantDirectory({
      database,
      sealing,
      tenants,
      authenticator,
      kinds: [tpm, ...hardware],
      parseReference: parseReferenceDocument,
      issuer,
      tokenLifetimeMs,
      sessionLifetimeMs,
      identityLifetimeMs,
      keyRotationMs,
      keepAttestations: config.keepAttestations,
      now,
    })
    const metrics = new Metrics(() => collateralGauges(collateral))
    const route = createRouter({
      directory,
      tenants,
      collateral: { store: answers, service: collateral },
      now,
      ready: () => responds(database),
      secureCookies: config.tls !== undefined,
      onInternalError: config.onInternalError ?? (() => {}),
    })
    const metricsListener = config.metrics === undefined ? undefined : await listenForMetrics(config.metrics, metrics)
    const listener = await listen({
      ...settings.listen,
      tls: config.tls,
      ...(config.tlsProfile === undefined ? {} : { tlsProfile: config.tlsProfile }),
      ...(config.maxConnections === undefined ? {} : { maxConnections: config.maxConnections }),
      ...(config.requestTimeoutMs === undefined ? {} : { requestTimeoutMs: config.requestTimeoutMs }),
      answer: metrics.observing(route, (exchange, reply, observation) => {
        config.onRequest?.(requestLogLine(exchange, reply, observation, now()))
      }),
    }).catch(async (error: unknown) => {
      await metricsListener?.close()
      throw error
    })
    return {
      url: listener.url,
      metricsUrl: metricsListener?.url,
      rotateTokenKey: async () => (await directory.find()).tokens.rotate(),
      close: async () => {
        await listener.close()
        await metricsListener?.close()
        await database[Symbol.asyncDispose]()
      },
    }
  } catch (error) {
    await database[Symbol.asyncDispose]()
    throw error
  }
}

function vendorClient({ collateralTimeoutMs }: VerifierConfig, now: () => Date): VendorClient {
  return new VendorClient({ now, ...(collateralTimeoutMs === undefined ? {} : { timeoutMs: collateralTimeoutMs }) })
}

/** Apart from what guests reach, and on loopback only. */
async function listenForMetrics(at: { host: string; port: number }, metrics: Metrics): Promise<RunningListener> {
  return await listen({
    ...at,
    tls: undefined,
    maxConnections: 16,
    answer: async ({ method, segments }) =>
      method === 'GET' && segments.join('/') === 'metrics'
        ? {
            status: 200,
            headers: { 'content-type': 'text/plain; version=0.0.4; charset=utf-8' },
            body: Buffer.from(metrics.render()),
          }
        : { status: 404 },
  })
}

function collateralGauges({ counts }: CollateralService): Record<string, number> {
  return Object.fromEntries(Object.entries(counts).map(([name, count]) => [`collateral_${name}`, count]))
}

async function responds(database: Database): Promise<boolean> {
  try {
    await database.get('SELECT 1 AS one')
    return true
  } catch {
    return false
  }
}
