/**
 * POST /identity: a certificate for a key that the asking guest made, with names that the tenant grants it.
 *
 * The answer is encrypted to the key that was attested, as resources are. A token may be shown to others, who could send
 * it here with a key of their own; they cannot read what comes back, so no certificate for their key ever exists outside.
 */
import type { JWTPayload } from 'jose'
import { DeniedError } from '#protocol/errors'
import type { AttestationLog } from '../store/attestation-log.ts'
import type { AuditLog } from '../store/audit-log.ts'
import type { Database } from '../store/database.ts'
import type { IdentityGrant, IdentityStore } from '../store/identity-store.ts'
import { parseCertificateRequest, verifyCertificateRequest } from '../x509/certificate-request.ts'
import type { GuestClaims, GuestCredentials } from './guest-claims.ts'
import type { IdentityCa } from './identity-ca.ts'
import { encryptToGuest, type FlattenedJwe } from './jwe.ts'
import { teeKeyOf } from './kbs-session.ts'
import { recordRefusal } from './refusal-record.ts'
import { checkRelease } from './release.ts'

export interface IdentityIssueOptions {
  readonly database: Database
  readonly guests: GuestClaims
  readonly log: AttestationLog
  readonly audit: AuditLog
  readonly identities: IdentityStore
  readonly ca: IdentityCa
  readonly now: () => Date
}

export class IdentityIssue {
  readonly #options: IdentityIssueOptions

  constructor(options: IdentityIssueOptions) {
    this.#options = options
  }

  /** @param body PKCS #10, DER */
  async issue(body: Uint8Array, credentials: GuestCredentials): Promise<FlattenedJwe> {
    const { guests, identities, log, now } = this.#options
    const context = {
      handshake: undefined as string | undefined,
      stage: 'release' as const,
      tee: '?',
      path: 'identity',
    }
    try {
      const claims = await guests.find(credentials)
      context.handshake = await guests.handshakeOf(claims)
      checkRelease({ kind: 'attested' }, claims) // before anything it sent is looked at
      const request = parseCertificateRequest(body)
      context.path = `identity ${request.names.join(' ')}`
      verifyCertificateRequest(request)
      const grants = await identities.list()
      for (const name of request.names) checkName(name, grants, claims)
      return await this.#hand(request, claims, context.handshake)
    } catch (error) {
      throw await recordRefusal(log, context, { error, at: now() })
    }
  }

  /** Whoever gets it is on record before it leaves. */
  async #hand(
    request: { readonly publicKey: Uint8Array; readonly names: readonly string[] },
    claims: JWTPayload,
    handshake: string | undefined,
  ): Promise<FlattenedJwe> {
    const { database, audit, ca, now } = this.#options
    const issued = await ca.issue(request)
    const answer = {
      certificate: issued.certificatePem,
      'ca-certificates': await ca.published(),
      'expires-at': issued.expiresAt.toISOString(),
    }
    const jwe = encryptToGuest(teeKeyOf(claims), Buffer.from(JSON.stringify(answer)))
    await database.transaction(async (sql) => {
      const actor = `guest ${handshake ?? '?'}`
      const subject = `${request.names.join(' ')} serial ${issued.serial}`
      const entry = { at: now(), actor, action: 'identity.issue', subject }
      await audit.add(sql, { ...entry, verdict: 'accepted', correlation: handshake })
    })
    return jwe
  }
}

/** Some grant of the name must have its condition met. @throws DeniedError ERR_IDENTITY_NAME, or as `checkRelease` */
function checkName(name: string, grants: readonly IdentityGrant[], claims: JWTPayload): void {
  let unmet: unknown
  for (const grant of grants) {
    if (!grant.names.includes(name)) continue
    try {
      checkRelease(grant.release, claims)
      return
    } catch (error) {
      unmet = error
    }
  }
  throw (
    unmet ??
    new DeniedError('ERR_IDENTITY_NAME', `no guest may have the name ${name}`, {
      field: 'identity',
      allowed: 'the names that `caisson verifier identity list` prints',
      asked: name,
      hint: `Grant it: caisson verifier identity put ID --name ${name}`,
    })
  )
}
