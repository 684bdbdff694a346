/**
 * Intel's signed documents in the shapes in which people keep them: answers of the provisioning certification service
 * (the body, or an object with headers and body), and one object with everything, as the quote verification library and
 * dcap-qvl pass it around. What a document is shows in its members, never in its name. Certificates and revocation lists
 * are not read here.
 */
import { fromHex } from '#protocol/encoding'
import { MalformedError } from '#protocol/errors'
import type { CollateralDocument } from '../../evidence/collateral.ts'
import { type EnclaveIdentity, parseEnclaveIdentity } from './enclave-identity.ts'
import { splitMembers } from './signed-document.ts'
import { parseTcbInfo, type TcbInfo } from './tcb-info.ts'

export interface SignedDocument<Content> {
  /** File that it came in, for messages. */
  readonly name: string
  readonly content: Content
  /** The exact text that Intel signed. */
  readonly signed: string
  /** R ‖ S. */
  readonly signature: Uint8Array
}

export interface IntelDocuments {
  readonly tcbInfos: readonly SignedDocument<TcbInfo>[]
  readonly identities: readonly SignedDocument<EnclaveIdentity>[]
  /** Files that look like Intel's and cannot be read: of a later version, formatted anew, or cut. */
  readonly broken: readonly { readonly name: string; readonly why: string }[]
}

/** Objects within objects: an answer in an object with headers, in a string of another object. */
const MAX_DEPTH = 4
const OURS = /"(?:tcbInfo|enclaveIdentity|tcb_info|qe_identity)\\?"/
const SIGNATURE_BYTES = 64

/** Documents that are none of Intel's are skipped; one that cannot be read does not spoil the others. */
export function parseIntelDocuments(documents: readonly CollateralDocument[]): IntelDocuments {
  const broken: { name: string; why: string }[] = []
  const read = documents.flatMap(({ name, text }) => {
    if (!OURS.test(text)) return []
    try {
      const found = new Found()
      found.read(name, text, 0)
      return [found]
    } catch (error) {
      if (!(error instanceof MalformedError)) throw error
      broken.push({ name, why: `${error.code}: ${error.message}` })
      return []
    }
  })
  return {
    tcbInfos: read.flatMap(({ tcbInfos }) => tcbInfos),
    identities: read.flatMap(({ identities }) => identities),
    broken,
  }
}

/** What one file holds. */
class Found {
  readonly tcbInfos: SignedDocument<TcbInfo>[] = []
  readonly identities: SignedDocument<EnclaveIdentity>[] = []

  read(name: string, text: string, depth: number): void {
    const members = splitMembers(text)
    const tcbInfo = members.get('tcbInfo') ?? signedText(members.get('tcb_info'))
    if (tcbInfo !== undefined) {
      const signature = readSignature(members.get('tcb_info_signature') ?? members.get('signature'), name)
      this.tcbInfos.push({ name, content: parseTcbInfo(tcbInfo), signed: tcbInfo, signature })
    }
    const identity = members.get('enclaveIdentity') ?? signedText(members.get('qe_identity'))
    if (identity !== undefined) {
      const signature = readSignature(members.get('qe_identity_signature') ?? members.get('signature'), name)
      this.identities.push({ name, content: parseEnclaveIdentity(identity), signed: identity, signature })
    }
    if (depth >= MAX_DEPTH) return
    for (const [member, value] of members) {
      if (member === 'tcbInfo' || member === 'enclaveIdentity' || !/^"?(?:\s|\\[nrt])*\{/.test(value)) continue
      const inner = OURS.test(value) ? objectText(value) : undefined
      if (inner !== undefined) this.read(name, inner, depth + 1)
    }
  }
}

/** An answer of the service begins with one of these members. */
const ANSWER = /^\s*\{\s*"(?:tcbInfo|enclaveIdentity|signature|headers|body)"/

/** The signed object itself, in a string; not a whole answer, which has the signature within. */
function signedText(value: string | undefined): string | undefined {
  const text = value === undefined ? undefined : objectText(value)
  return text === undefined || ANSWER.test(text) ? undefined : text
}

/** The object that a member is, or that its string holds. */
function objectText(value: string): string | undefined {
  const text = value.startsWith('"') ? String(JSON.parse(value)) : value
  return /^\s*\{/.test(text) ? text : undefined
}

function readSignature(value: string | undefined, name: string): Uint8Array {
  const text: unknown = value === undefined ? undefined : JSON.parse(value)
  if (typeof text !== 'string' || text.length !== 2 * SIGNATURE_BYTES) {
    throw new MalformedError('ERR_TDX_COLLATERAL', `${name}: a signature of 64 bytes in hexadecimal is needed`)
  }
  return fromHex(text, `${name}: signature`)
}
