/**
 * The verifier service, put together: store, keys, evidence, HTTP. One call starts it, `close()` ends it.
 */
import type { JWK } from 'jose'
import { AdminAuthenticator } from './admin-auth.ts'
import { AdminService } from './admin-service.ts'
import { AttestationLog } from './attestation-log.ts'
import { AuditLog } from './audit-log.ts'
import { Database } from './database.ts'
import { listen } from './http-listener.ts'
import { KbsService } from './kbs-service.ts'
import { ReferenceStore } from './reference-store.ts'
import { ResourceStore } from './resource-store.ts'
import { createRouter } from './routes.ts'
import { SessionSealer } from './session-seal.ts'
import { SpentChallenges } from './spent-challenges.ts'
import { TokenIssuer } from './token-issuer.ts'
import { parseTpmReference, TpmEvidenceKind } from './tpm-evidence.ts'

export interface VerifierConfig {
  /** SQLite file; created when absent, readable by its owner alone. Several processes may share it. */
  readonly storePath: string
  /** Port 0: any free port. Default 127.0.0.1, port 0. */
  readonly listen?: { readonly host: string; readonly port: number }
  /** Absent: plain HTTP, on loopback only. */
  readonly tls?: { readonly certificatePem: string; readonly privateKeyPem: string }
  /** Public Ed25519 JWKs of administrators, see `createAdminKey`. Without any, nothing can be administered. */
  readonly adminKeys: readonly JWK[]
  /**
   * PEM certificates of the CAs whose TPMs are believed. Default none: then every TPM is refused, because whoever holds
   * the CA's key can make a TPM that says anything. Naming the CA of software TPMs is the tenant's decision.
   */
  readonly trustedTpmCas?: readonly string[]
  /** PEM certificates between those roots and the TPMs' own; never taken from a peer. */
  readonly tpmIntermediates?: readonly string[]
  /** `iss` of the tokens. Default "caisson-verifier". */
  readonly issuer?: string
  /** Milliseconds. Default 300000. */
  readonly tokenLifetimeMs?: number
  /** From challenge to answer, milliseconds. Default 300000. */
  readonly sessionLifetimeMs?: number
  /** Age at which signing and sealing keys are replaced, milliseconds. Default one day. */
  readonly keyRotationMs?: number
  /** Attestation records kept. Default 10000. */
  readonly keepAttestations?: number
  /** Milliseconds until a request must have arrived completely. Default 20000. */
  readonly requestTimeoutMs?: number
  readonly now?: () => Date
  /** Told about internal failures (5xx answers); nothing secret in it. Default: nothing happens. */
  readonly onInternalError?: (correlationId: string, error: unknown) => void
}

export interface RunningVerifier {
  /** Without the `/kbs/v0` prefix: "https://127.0.0.1:41234". */
  readonly url: string
  /** Replaces the token signing key at once; tokens already issued stay valid until they expire. */
  rotateTokenKey(): void
  close(): Promise<void>
}

const MINUTE_MS = 60_000
const DEFAULTS = {
  listen: { host: '127.0.0.1', port: 0 },
  issuer: 'caisson-verifier',
  tokenLifetimeMs: 5 * MINUTE_MS,
  sessionLifetimeMs: 5 * MINUTE_MS,
  keyRotationMs: 24 * 60 * MINUTE_MS,
  keepAttestations: 10_000,
} as const

/**
 * Starts the service. Errors: ERR_STORE_OPEN, ERR_STORE_VERSION, ERR_TLS_REQUIRED, ERR_LISTEN,
 * ERR_ADMIN_KEY, and those of unreadable CA certificates.
 */
export async function startVerifier(config: VerifierConfig): Promise<RunningVerifier> {
  const settings = { ...DEFAULTS, ...config }
  const { issuer, tokenLifetimeMs, sessionLifetimeMs, keyRotationMs } = settings
  const now = config.now ?? (() => new Date())
  const authenticator = new AdminAuthenticator({ keys: config.adminKeys, now })
  const tpm = new TpmEvidenceKind({
    roots: config.trustedTpmCas ?? [],
    intermediates: config.tpmIntermediates ?? [],
    now,
  })
  const database = Database.open(config.storePath)
  try {
    const tokens = new TokenIssuer({ database, rotateAfterMs: keyRotationMs, tokenLifetimeMs, now })
    const shared = {
      database,
      log: new AttestationLog(database, { keep: settings.keepAttestations }),
      audit: new AuditLog(database),
      references: new ReferenceStore(database),
      resources: new ResourceStore(database),
      now,
    }
    const kbs = new KbsService({
      ...shared,
      sealer: new SessionSealer({
        database,
        rotateAfterMs: keyRotationMs,
        sessionLifetimeMs: Math.max(sessionLifetimeMs, tokenLifetimeMs),
        now,
      }),
      tokens,
      spent: new SpentChallenges(database),
      kinds: [tpm],
      issuer,
      sessionLifetimeMs,
      tokenLifetimeMs,
    })
    const admin = new AdminService({ ...shared, authenticator, parseReference: parseTpmReference })
    const listener = await listen({
      ...settings.listen,
      tls: config.tls,
      ...(config.requestTimeoutMs === undefined ? {} : { requestTimeoutMs: config.requestTimeoutMs }),
      answer: createRouter({
        kbs,
        admin,
        tokens,
        issuer,
        now,
        secureCookies: config.tls !== undefined,
        onInternalError: config.onInternalError ?? (() => {}),
      }),
    })
    return {
      url: listener.url,
      rotateTokenKey: () => tokens.rotate(),
      close: async () => {
        await listener.close()
        database[Symbol.dispose]()
      },
    }
  } catch (error) {
    database[Symbol.dispose]()
    throw error
  }
}
