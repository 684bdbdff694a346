/**
 * The LUKS2 header (LUKS2 On-Disk Format Specification 1.1.1, sections 2 and 3), read from a disk that the host owns.
 * One form is known and everything else is refused: AES-XTS with 512-bit keys for data and keyslots, anti-forensic split
 * with SHA-256, PBKDF2. A reader that believes the header about its ciphers can be told to use none (`cipher_null`), and
 * then opens a disk that its forger wrote.
 */
import type { CryptoProvider } from '#protocol/crypto-provider'
import { concatBytes, equalBytes, fromBase64, fromHex, toBase64, toHex } from '#protocol/encoding'
import { MalformedError } from '#protocol/errors'
import { JsonFields } from '#protocol/json-fields'

export const KEY_BYTES = 64
/** Anti-forensic stripes of a keyslot. */
export const STRIPES = 4000
const DIGEST_BYTES = 32

/** Of the derivation from the passphrase or to the digest. */
export interface Pbkdf2 {
  readonly hash: 'sha256' | 'sha512'
  readonly iterations: number
  readonly salt: Uint8Array
}

export interface LuksKeyslot {
  readonly kdf: Pbkdf2
  /** Bytes from the start of the device. */
  readonly areaOffset: number
}

export interface LuksHeader {
  readonly keyslots: readonly LuksKeyslot[]
  /** Of the volume key. */
  readonly digest: Pbkdf2 & { readonly value: Uint8Array }
  /** Where the data begins, bytes. */
  readonly dataOffset: number
  readonly sectorBytes: 512 | 4096
}

/** Both copies together, as cryptsetup writes them by default. Bytes. */
export const HEADER_COPY_BYTES: number = 16 * 1024
export const AREA_BYTES: number = 256_000
const BINARY_BYTES = 4096
const JSON_BYTES = HEADER_COPY_BYTES - BINARY_BYTES
const DATA_OFFSET = 16 * 1024 * 1024
const AREA_OFFSET = 2 * HEADER_COPY_BYTES
const AREA_ROOM = 258_048
const MAX_COPY_BYTES = 4 * 1024 * 1024
const MAX_OFFSET = 2 ** 40
const MAX_ITERATIONS = 10_000_000
const CIPHER = 'aes-xts-plain64'
const MAGICS = ['4c554b53babe', '534b554cbabe'] as const
const CODE = 'ERR_LUKS_HEADER'
const CHECKSUM_AT = 448

/** Bytes of one copy, told by its first 4096. @throws MalformedError ERR_LUKS_HEADER */
export function parseLuksCopySize(start: Uint8Array): number {
  const { bytes } = readBinary(start)
  return bytes
}

/**
 * One whole copy: the one at the start of the device.
 * @throws MalformedError ERR_LUKS_HEADER
 */
export function parseLuksHeader(copy: Uint8Array, crypto: Pick<CryptoProvider, 'createHash'>): LuksHeader {
  const { bytes, checksum } = readBinary(copy)
  if (copy.byteLength !== bytes) throw malformed(`has ${copy.byteLength} bytes of ${bytes}`)
  if (!equalBytes(checksumOf(copy, crypto), checksum)) throw malformed('has a wrong checksum')
  const json = copy.subarray(BINARY_BYTES)
  const end = json.indexOf(0)
  const text = new TextDecoder().decode(end < 0 ? json : json.subarray(0, end))
  const root = JsonFields.parse(text, 'LUKS2', { code: CODE, maxChars: MAX_COPY_BYTES })
  return readMetadata(root)
}

function readBinary(start: Uint8Array): { bytes: number; checksum: Uint8Array } {
  if (start.byteLength < BINARY_BYTES) throw malformed('is cut short')
  const view = new DataView(start.buffer, start.byteOffset, start.byteLength)
  if (toHex(start.subarray(0, 6)) !== MAGICS[0] || view.getUint16(6) !== 2) throw malformed('is none of LUKS2')
  const bytes = Number(view.getBigUint64(8))
  if (bytes < HEADER_COPY_BYTES || bytes > MAX_COPY_BYTES || (bytes & (bytes - 1)) !== 0) {
    throw malformed(`has a size of ${bytes}`)
  }
  if (view.getBigUint64(256) !== 0n) throw malformed('is not at the start of its device')
  if (!equalBytes(start.subarray(72, 79), new TextEncoder().encode('sha256\0')))
    throw malformed('has a checksum other than SHA-256')
  return { bytes, checksum: start.subarray(CHECKSUM_AT, CHECKSUM_AT + DIGEST_BYTES) }
}

function readMetadata(root: JsonFields): LuksHeader {
  const config = root.object('config')
  if (config.has('requirements')) throw malformed('requires what is not known')
  const segments = root.object('segments')
  only(segments, '0')
  const segment = segments.object('0')
  segment.oneOf('type', ['crypt'])
  segment.oneOf('encryption', [CIPHER])
  segment.oneOf('size', ['dynamic'])
  segment.oneOf('iv_tweak', ['0'])
  if (segment.has('integrity')) throw malformed('has integrity tags, which are not known')
  const sectorBytes = segment.integer('sector_size', 512, 4096)
  if (sectorBytes !== 512 && sectorBytes !== 4096) throw malformed(`has sectors of ${sectorBytes} bytes`)
  const digests = root.object('digests')
  only(digests, '0')
  const digest = digests.object('0')
  digest.oneOf('type', ['pbkdf2'])
  const value = bytesOf(digest, 'digest')
  if (value.byteLength !== DIGEST_BYTES) throw malformed('has a digest of another length')
  return {
    keyslots: readKeyslots(root.object('keyslots')),
    digest: { ...readPbkdf2(digest), value },
    dataOffset: offsetOf(segment, sectorBytes),
    sectorBytes,
  }
}

/** Numbered 0 to 31. */
function readKeyslots(slots: JsonFields): readonly LuksKeyslot[] {
  const names = Array.from({ length: 32 }, (_, index) => String(index)).filter((name) => slots.has(name))
  if (names.length === 0) throw malformed('has no keyslot')
  return names.map((name) => {
    const slot = slots.object(name)
    slot.oneOf('type', ['luks2'])
    slot.integer('key_size', KEY_BYTES, KEY_BYTES)
    const af = slot.object('af')
    af.oneOf('type', ['luks1'])
    af.oneOf('hash', ['sha256'])
    af.integer('stripes', STRIPES, STRIPES)
    const area = slot.object('area')
    area.oneOf('type', ['raw'])
    area.oneOf('encryption', [CIPHER])
    area.integer('key_size', KEY_BYTES, KEY_BYTES)
    const kdf = slot.object('kdf')
    kdf.oneOf('type', ['pbkdf2'])
    return { kdf: readPbkdf2(kdf), areaOffset: offsetOf(area, 512) }
  })
}

function readPbkdf2(fields: JsonFields): Pbkdf2 {
  return {
    hash: fields.oneOf('hash', ['sha256', 'sha512']),
    iterations: fields.integer('iterations', 1000, MAX_ITERATIONS),
    salt: bytesOf(fields, 'salt'),
  }
}

function bytesOf(fields: JsonFields, name: string): Uint8Array {
  const bytes = fromBase64(fields.string(name, 128), name)
  if (bytes.byteLength < 16 || bytes.byteLength > 64) throw malformed(`has ${name} of ${bytes.byteLength} bytes`)
  return bytes
}

/** Sizes are text, since JSON of other readers has no whole numbers of 64 bits. */
function offsetOf(fields: JsonFields, unit: number): number {
  const text = fields.string('offset', 20)
  const offset = /^[0-9]{1,15}$/.test(text) ? Number(text) : Number.NaN
  if (!(offset >= AREA_OFFSET && offset <= MAX_OFFSET && offset % unit === 0))
    throw malformed(`has an offset of ${text}`)
  return offset
}

function only(fields: JsonFields, name: string): void {
  for (let other = 0; other < 64; other++) {
    if (String(other) !== name && fields.has(String(other))) throw malformed(`has more than one of ${fields.path}`)
  }
  if (!fields.has(name)) throw malformed(`has none of ${fields.path}`)
}

/** A new header with one keyslot. Both copies, to be written at the start of the device. */
export function encodeLuksHeader(
  input: {
    readonly kdf: Pbkdf2
    readonly digest: LuksHeader['digest']
    readonly uuid: string
    readonly salts: Uint8Array
  },
  crypto: Pick<CryptoProvider, 'createHash'>,
): { readonly copies: Uint8Array; readonly header: LuksHeader } {
  const { kdf, digest } = input
  const pbkdf2 = ({ hash, iterations, salt }: Pbkdf2) => ({ type: 'pbkdf2', hash, iterations, salt: toBase64(salt) })
  const json = JSON.stringify({
    keyslots: {
      0: {
        type: 'luks2',
        key_size: KEY_BYTES,
        af: { type: 'luks1', stripes: STRIPES, hash: 'sha256' },
        area: {
          type: 'raw',
          offset: String(AREA_OFFSET),
          size: String(AREA_ROOM),
          encryption: CIPHER,
          key_size: KEY_BYTES,
        },
        kdf: pbkdf2(kdf),
      },
    },
    tokens: {},
    segments: {
      0: {
        type: 'crypt',
        offset: String(DATA_OFFSET),
        size: 'dynamic',
        iv_tweak: '0',
        encryption: CIPHER,
        sector_size: 512,
      },
    },
    digests: { 0: { ...pbkdf2(digest), keyslots: ['0'], segments: ['0'], digest: toBase64(digest.value) } },
    config: { json_size: String(JSON_BYTES), keyslots_size: String(DATA_OFFSET - AREA_OFFSET) },
  })
  const copy = (index: 0 | 1): Uint8Array => encodeCopy(index, json, input, crypto)
  return {
    copies: concatBytes(copy(0), copy(1)),
    header: { keyslots: [{ kdf, areaOffset: AREA_OFFSET }], digest, dataOffset: DATA_OFFSET, sectorBytes: 512 },
  }
}

function encodeCopy(
  index: 0 | 1,
  json: string,
  { uuid, salts }: { readonly uuid: string; readonly salts: Uint8Array },
  crypto: Pick<CryptoProvider, 'createHash'>,
): Uint8Array {
  const copy = new Uint8Array(HEADER_COPY_BYTES)
  const view = new DataView(copy.buffer)
  const text = (at: number, value: string): void => copy.set(new TextEncoder().encode(value), at)
  copy.set(fromHex(MAGICS[index], 'magic'), 0)
  view.setUint16(6, 2)
  view.setBigUint64(8, BigInt(HEADER_COPY_BYTES))
  view.setBigUint64(16, 1n)
  text(72, 'sha256')
  copy.set(salts.subarray(index * 64, (index + 1) * 64), 104)
  text(168, uuid)
  view.setBigUint64(256, BigInt(index * HEADER_COPY_BYTES))
  text(BINARY_BYTES, json)
  copy.set(checksumOf(copy, crypto), CHECKSUM_AT)
  return copy
}

function checksumOf(copy: Uint8Array, crypto: Pick<CryptoProvider, 'createHash'>): Uint8Array {
  const blank = new Uint8Array(copy)
  blank.fill(0, CHECKSUM_AT, CHECKSUM_AT + 64)
  const hash = crypto.createHash('sha256')
  hash.update(blank)
  return hash.digest()
}

function malformed(problem: string): MalformedError {
  return new MalformedError(CODE, `the LUKS2 header ${problem}`, {
    hint: 'Format the device with: cryptsetup luksFormat --type luks2 --pbkdf pbkdf2, or let the policy format an empty one.',
  })
}
