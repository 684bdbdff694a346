/**
 * Guests that do handshakes one after the other: challenge, answer, token, one resource. What they send is what
 * `#attestation/client` sends; it warms the verifier up, so each answer was also read by a whole client.
 */
import { generateKeyPairSync } from 'node:crypto'
import { Attester } from '#attestation/client/attester'
import type { EvidenceSource } from '#attestation/client/evidence-source'
import {
  CURRENT_KBS_VERSION,
  encodeKbsAttestation,
  encodeKbsRequest,
  parseKbsChallenge,
  reportDataDigest,
  type TeePublicKey,
} from '#protocol/kbs-messages'
import { nodeCrypto } from '#protocol/node/crypto'
import { UndiciTransport } from '#protocol/node/http'
import { INITDATA } from '../../test/component/attestation-verifier/hardware-guests.ts'
import { type Answer, Connection } from './connection.ts'

/** Kept for the guests by `service.ts`. */
export const RESOURCE = 'default/bench/key'

export interface Waits {
  /** Milliseconds for the verifier's two answers of a handshake, challenge and token together. */
  readonly verdicts: number[]
  /** Milliseconds for each single answer, the resource's included. */
  readonly answers: number[]
}

const INITDATA_TEXT = Buffer.from(INITDATA).toString('utf8')

export class Guest {
  readonly #evidence: EvidenceSource
  readonly #url: string
  readonly #ca: string
  #connection: Connection | undefined

  constructor(guest: { evidence: EvidenceSource; url: string; ca: string }) {
    this.#evidence = guest.evidence
    this.#url = guest.url
    this.#ca = guest.ca
  }

  /** As guests do it, with nothing left out; the resource is opened. */
  async warmUp(count: number): Promise<void> {
    const http = new UndiciTransport({ caPem: [this.#ca], maxConnections: 1 })
    const now = (): Date => new Date()
    for (let index = 0; index < count; index++) {
      const guest = new Attester({ http, crypto: nodeCrypto, evidence: this.#evidence, url: this.#url, now })
      await guest.attest({ initdataToml: INITDATA })
      await guest.getResource(RESOURCE)
    }
    await http.close()
    this.#connection = await Connection.open(this.#url, this.#ca)
  }

  async handshakes(count: number, waits: Waits): Promise<void> {
    for (let index = 0; index < count; index++) await this.#handshake(waits)
  }

  close(): void {
    this.#connection?.close()
  }

  async #handshake(waits: Waits): Promise<void> {
    const connection = this.#connection
    if (connection === undefined) throw new TypeError('a guest that was not warmed up')
    const teePublicKey = freshKey()
    await using prepared = await this.#evidence.prepare()
    const request = { version: CURRENT_KBS_VERSION, supportedHashAlgorithms: ['sha384'], ...prepared.request }
    const challenged = accepted(await connection.post('/kbs/v0/auth', encodeKbsRequest(request)))
    const challenge = parseKbsChallenge(challenged.body)
    const bound = { nonce: challenge.nonce, teePublicKey, additionalEvidence: '' }
    const reportData = reportDataDigest(nodeCrypto, { version: CURRENT_KBS_VERSION, ...bound })
    const primaryEvidence = await prepared.answer({ challenge, reportData, images: [] })
    const answer = encodeKbsAttestation({ ...bound, initdataToml: INITDATA_TEXT, primaryEvidence })
    const attested = accepted(await connection.post('/kbs/v0/attest', answer, challenged.cookie))
    const { token }: { token: string } = JSON.parse(attested.body)
    const released = accepted(await connection.get(`/kbs/v0/resource/${RESOURCE}`, token))
    waits.verdicts.push(challenged.ms + attested.ms)
    waits.answers.push(challenged.ms, attested.ms, released.ms)
  }
}

function freshKey(): TeePublicKey {
  const { publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const { x = '', y = '' } = publicKey.export({ format: 'jwk' })
  return { kty: 'EC', crv: 'P-256', alg: 'ECDH-ES+A256KW', x, y }
}

function accepted(answer: Answer): Answer {
  if (answer.status === 200) return answer
  throw new Error(`the verifier answered ${answer.status}: ${answer.body}`)
}
