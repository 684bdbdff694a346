/**
 * Collateral: what is known about the makers of evidence, as files of any name and encoding become certificates,
 * revocation lists and documents. Nothing is trusted for being here; what is not recognised is reported.
 */

import { DER_TAG, derLength } from '#protocol/der'
import { CaissonError, MalformedError } from '#protocol/errors'
import { parseCertificateTable } from '../snp/parse/certificate-table.ts'
import { type ParsedCertificate, parseCertificate } from '../x509/certificate.ts'
import { type ParsedCrl, parseCrl } from '../x509/crl.ts'
import { parsePem } from '../x509/pem.ts'
import { decodeText, decodeUrlEncoded, utf8Text } from './text-encoding.ts'

export interface CollateralFile {
  readonly name: string
  readonly bytes: Uint8Array
}

export interface CollateralDocument {
  readonly name: string
  /** JSON whose top level is an object, byte for byte: parts of it are signed. */
  readonly text: string
}

export interface Collateral {
  /** Of CAs, endorsement keys, attestation keys…: never anchors for being here. */
  readonly certificates: readonly ParsedCertificate[]
  readonly crls: readonly ParsedCrl[]
  /** TCB info, identities and what else is JSON: read by the module of the TEE that knows them. */
  readonly documents: readonly CollateralDocument[]
  readonly ignored: readonly { readonly name: string; readonly why: string }[]
}

export const NO_COLLATERAL: Collateral = { certificates: [], crls: [], documents: [], ignored: [] }

export const COLLATERAL_LIMITS = {
  files: 512,
  fileBytes: 16_777_216,
  totalBytes: 67_108_864,
  certificates: 2048,
  crls: 256,
  jsonDepth: 16,
  jsonStrings: 4096,
} as const

const CERTIFICATE_LABELS: readonly string[] = ['CERTIFICATE', 'X509 CERTIFICATE', 'TRUSTED CERTIFICATE']
const CRL_LABEL = 'X509 CRL'
const SEQUENCE = 0x30

/**
 * Recognises PEM (all blocks, also when URL-encoded as in headers of Intel's service), DER (also several in a row), JSON
 * (and the certificates and lists in its strings), a host's table of certificates for SNP guests, and hex or base64 of DER.
 *
 * Throws `MalformedError` ERR_COLLATERAL for more than `COLLATERAL_LIMITS` allows; a file that means nothing is `ignored`.
 */
export function readCollateral(files: readonly CollateralFile[]): Collateral {
  const { files: most, totalBytes } = COLLATERAL_LIMITS
  if (files.length > most) throw malformed(`${files.length} files, at most ${most} are read`)
  const total = files.reduce((sum, { bytes }) => sum + bytes.length, 0)
  if (total > totalBytes) throw malformed(`${total} bytes, at most ${totalBytes} are read`)
  const reader = new CollateralReader()
  for (const file of files) reader.add(file)
  return reader.collateral()
}

/** Several collections as one. */
export function mergeCollateral(...parts: readonly Collateral[]): Collateral {
  return {
    certificates: unique(parts.flatMap(({ certificates }) => certificates)),
    crls: unique(parts.flatMap(({ crls }) => crls)),
    documents: parts.flatMap(({ documents }) => documents),
    ignored: parts.flatMap(({ ignored }) => ignored),
  }
}

class CollateralReader {
  readonly #certificates = new Map<string, ParsedCertificate>()
  readonly #crls = new Map<string, ParsedCrl>()
  readonly #documents: CollateralDocument[] = []
  readonly #ignored: { name: string; why: string }[] = []

  collateral(): Collateral {
    return {
      certificates: [...this.#certificates.values()],
      crls: [...this.#crls.values()],
      documents: this.#documents,
      ignored: this.#ignored,
    }
  }

  add({ name, bytes }: CollateralFile): void {
    if (bytes.length > COLLATERAL_LIMITS.fileBytes) {
      this.#ignore(name, `larger than ${COLLATERAL_LIMITS.fileBytes} bytes`)
    } else if (bytes[0] === SEQUENCE && this.#der(bytes)) {
      return
    } else {
      const text = utf8Text(bytes)
      if (text !== undefined) this.#text(name, text.trim())
      else if (!this.#table(bytes)) this.#ignore(name, 'neither DER, text, nor a table of certificates')
    }
  }

  /** What a host hands to SNP guests beside their reports. */
  #table(bytes: Uint8Array): boolean {
    try {
      const entries = parseCertificateTable(bytes).filter(({ kind }) => kind !== undefined)
      return entries.filter((entry) => this.#der(entry.bytes)).length > 0
    } catch (error) {
      if (error instanceof MalformedError && error.code !== 'ERR_COLLATERAL') return false
      throw error
    }
  }

  #text(name: string, text: string): void {
    // A response of Intel's service as it came: the chain is in a header, the document behind the headers.
    const response = /^HTTP\/[\d.]+ \d{3}[^\n]*\n(.*?)\r?\n\r?\n(.*)$/s.exec(text)
    if (response !== null) {
      this.#pem(name, decodeUrlEncoded(response[1] ?? ''))
      this.#text(name, (response[2] ?? '').trim())
    } else if (text.startsWith('{')) {
      this.#json(name, text)
    } else if (!this.#scan(name, text)) {
      this.#ignore(name, 'neither PEM, JSON, nor hexadecimal or base64 of DER')
    }
  }

  /** PEM, URL-encoded PEM, hex or base64 of DER. */
  #scan(name: string, text: string): boolean {
    const plain = text.includes('-----BEGIN%20') ? decodeUrlEncoded(text) : text
    if (plain.includes('-----BEGIN ')) return this.#pem(name, plain)
    const decoded = decodeText(text)
    return decoded?.bytes[0] === SEQUENCE && this.#der(decoded.bytes)
  }

  #pem(name: string, text: string): boolean {
    const blocks = this.#tolerate(name, () => parsePem(text)) ?? []
    for (const { label, bytes } of blocks) {
      this.#tolerate(name, () => {
        // The same chain comes with every answer of Intel's service: it is read once.
        const known = this.#certificates.has(keyOf({ der: bytes })) || this.#crls.has(keyOf({ der: bytes }))
        if (known) return
        if (CERTIFICATE_LABELS.includes(label)) this.#certificate(parseCertificate(bytes))
        else if (label === CRL_LABEL) this.#crl(parseCrl(bytes))
        else this.#ignore(name, `PEM block of ${label}`)
      })
    }
    return true
  }

  /** One file, or one block of it, that is not what it says does not spoil the others. */
  #tolerate<Value>(name: string, read: () => Value): Value | undefined {
    try {
      return read()
    } catch (error) {
      if (!(error instanceof CaissonError) || error.code === 'ERR_COLLATERAL') throw error
      this.#ignore(name, `${error.code}: ${error.message}`)
      return undefined
    }
  }

  /** Certificates and lists, one behind the other. */
  #der(bytes: Uint8Array): boolean {
    const found: (ParsedCertificate | ParsedCrl)[] = []
    try {
      for (let rest = bytes; rest.length > 0; ) {
        const length = derLength(rest)
        found.push(readOne(rest.subarray(0, length)))
        rest = rest.subarray(length)
      }
    } catch (error) {
      if (error instanceof CaissonError) return false
      throw error
    }
    for (const item of found) {
      if ('revoked' in item) this.#crl(item)
      else this.#certificate(item)
    }
    return found.length > 0
  }

  #json(name: string, text: string): void {
    let document: unknown
    try {
      document = JSON.parse(text)
    } catch {
      this.#ignore(name, 'not JSON')
      return
    }
    this.#documents.push({ name, text })
    for (const value of stringsOf(document)) {
      if (typeof value === 'string') this.#scan(name, value)
      else this.#der(value)
    }
  }

  #certificate(certificate: ParsedCertificate): void {
    this.#certificates.set(keyOf(certificate), certificate)
    if (this.#certificates.size > COLLATERAL_LIMITS.certificates) throw malformed('too many certificates')
  }

  #crl(crl: ParsedCrl): void {
    this.#crls.set(keyOf(crl), crl)
    if (this.#crls.size > COLLATERAL_LIMITS.crls) throw malformed('too many revocation lists')
  }

  #ignore(name: string, why: string): void {
    this.#ignored.push({ name, why })
  }
}

function readOne(der: Uint8Array): ParsedCertificate | ParsedCrl {
  if (!beginsLikeCrl(der)) return parseCertificate(der)
  try {
    return parseCrl(der)
  } catch {
    return parseCertificate(der)
  }
}

/** The first field of lists is a number; of certificates it is a tagged one, unless they are of version 1. */
function beginsLikeCrl(der: Uint8Array): boolean {
  const headerBytes = (at: number): number => ((der[at + 1] ?? 0) < 0x80 ? 2 : 2 + ((der[at + 1] ?? 0) & 0x7f))
  const tbs = headerBytes(0)
  return der[tbs + headerBytes(tbs)] === DER_TAG.integer
}

/** Strings and arrays of bytes anywhere in a document, within the limits. */
function stringsOf(document: unknown): (string | Uint8Array)[] {
  const found: (string | Uint8Array)[] = []
  const visit = (value: unknown, depth: number): void => {
    if (found.length >= COLLATERAL_LIMITS.jsonStrings || depth > COLLATERAL_LIMITS.jsonDepth) return
    if (typeof value === 'string') {
      if (value.length >= 64) found.push(value) // no certificate is shorter
    } else if (Array.isArray(value) && value.length > 0 && value.every(isByte)) {
      if (value[0] === SEQUENCE) found.push(Uint8Array.from(value))
    } else if (typeof value === 'object' && value !== null) {
      for (const member of Object.values(value)) visit(member, depth + 1)
    }
  }
  visit(document, 0)
  return found
}

function isByte(value: unknown): value is number {
  return typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= 255
}

function unique<Item extends { readonly der: Uint8Array }>(items: readonly Item[]): Item[] {
  return [...new Map(items.map((item) => [keyOf(item), item])).values()]
}

/** One character for each byte. */
function keyOf({ der }: { readonly der: Uint8Array }): string {
  return Buffer.from(der.buffer, der.byteOffset, der.byteLength).toString('latin1')
}

function malformed(why: string): MalformedError {
  return new MalformedError('ERR_COLLATERAL', `collateral: ${why}`)
}
