/**
 * The CA of one tenant's pod identities. Its keys are sealed in the store like the tenant's other keys.
 *
 * A new key is published for a day before it signs anything, and the old one stays published until the last certificate
 * it signed has expired: whoever reads the published certificates once a day never meets an unknown issuer.
 */
import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject, randomBytes } from 'node:crypto'
import { toHex } from '#protocol/encoding'
import { JsonFields } from '#protocol/json-fields'
import { KeyRing, type StoredKey } from '../store/key-ring.ts'
import { authorityExtensions, distinguishedName, issueCertificate, peerExtensions } from '../x509/issue.ts'
import { encodePem } from '../x509/pem.ts'
import type { RingPlace } from './session-seal.ts'

export interface IssuedIdentity {
  readonly certificatePem: string
  /** Hexadecimal. */
  readonly serial: string
  readonly expiresAt: Date
}

export interface IdentityCaOptions extends Omit<RingPlace, 'rotateAfterMs'> {
  /** Of the certificates it issues, milliseconds. */
  readonly lifetimeMs: number
}

export const DAY_MS = 86_400_000
/** A key is published alone for this long. */
const ANNOUNCE_MS = DAY_MS
const ROTATE_AFTER_MS = 30 * DAY_MS
/** For peers whose clock is behind. */
const BACKDATE_MS = 10 * 60_000
const SERIAL_BYTES = 16
const ORGANIZATION = 'Caisson pod identities'

export class IdentityCa {
  readonly #options: IdentityCaOptions
  readonly #ring: KeyRing
  #loaded: { readonly kid: string; readonly authority: Authority } | undefined

  constructor(options: IdentityCaOptions) {
    this.#options = options
    // The old key signs while the new one is announced; what it signed last must expire before it goes.
    const keepMs = 2 * ANNOUNCE_MS + options.lifetimeMs
    this.#ring = new KeyRing({
      ...options,
      kind: 'identity-ca',
      rotateAfterMs: ROTATE_AFTER_MS,
      keepMs,
      generate: () => {
        const now = options.now()
        const notAfter = new Date(now.getTime() + ROTATE_AFTER_MS + keepMs)
        return generateAuthority(options.tenant, { notBefore: backdated(now), notAfter })
      },
    })
  }

  /** @param request what was asked for and granted; the key's possession was proved */
  async issue(request: { readonly publicKey: Uint8Array; readonly names: readonly string[] }): Promise<IssuedIdentity> {
    const now = this.#options.now()
    const issuer = this.#open(await this.#signer(now))
    const serial = newSerial()
    const expiresAt = new Date(Math.floor((now.getTime() + this.#options.lifetimeMs) / 1000) * 1000)
    const certificate = issueCertificate(
      {
        serial,
        issuer: issuer.name,
        subject: distinguishedName({ commonName: request.names[0] ?? '' }),
        notBefore: backdated(now),
        notAfter: expiresAt,
        publicKey: request.publicKey,
        extensions: peerExtensions(request.publicKey, issuer.publicKey, request.names),
      },
      issuer.privateKey,
    )
    return {
      certificatePem: encodePem({ label: 'CERTIFICATE', bytes: certificate }),
      serial: toHex(serial),
      expiresAt,
    }
  }

  /** PEM of every CA certificate that counts: also of the one that signs next. Never empty. */
  async published(): Promise<string> {
    await this.#ring.current()
    return (await this.#ring.all()).map((key) => materialOf(key).certificatePem).join('')
  }

  /** The newest key that was announced long enough and outlives what it signs. */
  async #signer(now: Date): Promise<StoredKey> {
    const newest = await this.#ring.current()
    const announcedSince = now.getTime() - ANNOUNCE_MS
    const lastSigning = now.getTime() - ROTATE_AFTER_MS - 2 * ANNOUNCE_MS
    const keys = await this.#ring.all()
    return keys.find(({ createdMs }) => createdMs <= announcedSince && createdMs >= lastSigning) ?? newest
  }

  #open(key: StoredKey): Authority {
    if (this.#loaded?.kid === key.kid) return this.#loaded.authority
    const privateKey = createPrivateKey(materialOf(key).privateKeyPem)
    const publicKey = createPublicKey(privateKey).export({ type: 'spki', format: 'der' })
    const authority = { privateKey, publicKey, name: authorityName(this.#options.tenant) }
    this.#loaded = { kid: key.kid, authority }
    return authority
  }
}

interface Authority {
  readonly privateKey: KeyObject
  readonly publicKey: Uint8Array
  readonly name: Uint8Array
}

function generateAuthority(
  tenant: string,
  validity: { readonly notBefore: Date; readonly notAfter: Date },
): { kid: string; material: string } {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const spki = publicKey.export({ type: 'spki', format: 'der' })
  const serial = newSerial()
  const name = authorityName(tenant)
  const fields = { ...validity, serial, issuer: name, subject: name, publicKey: spki }
  const certificate = issueCertificate({ ...fields, extensions: authorityExtensions(spki) }, privateKey)
  const material = {
    certificatePem: encodePem({ label: 'CERTIFICATE', bytes: certificate }),
    privateKeyPem: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
  }
  return { kid: toHex(serial), material: JSON.stringify(material) }
}

function authorityName(tenant: string): Uint8Array {
  return distinguishedName({ organization: ORGANIZATION, commonName: tenant })
}

function materialOf(key: StoredKey): { certificatePem: string; privateKeyPem: string } {
  const fields = new JsonFields(JSON.parse(key.material), 'identity CA', 'ERR_STORE_FAILED')
  return {
    certificatePem: fields.string('certificatePem', 4096),
    privateKeyPem: fields.string('privateKeyPem', 4096),
  }
}

/** Random, positive and without a leading zero byte (RFC 5280 section 4.1.2.2). */
function newSerial(): Uint8Array {
  const serial = new Uint8Array(randomBytes(SERIAL_BYTES))
  serial[0] = ((serial[0] ?? 0) & 0x7f) | 0x40
  return serial
}

function backdated(now: Date): Date {
  return new Date(now.getTime() - BACKDATE_MS)
}
