/** What guests tell of their refusals, however much of it comes at once. */
import { randomBytes } from 'node:crypto'
import test, { type ExecutionContext } from 'ava'
import { createTeeKeyPair } from '#attestation/client/sealed-resource'
import { RecordedError } from '#attestation/verifier/refusal-record'
import { CaissonError } from '#protocol/errors'
import { encodeKbsAttestation } from '#protocol/kbs-messages'
import { serveTenant } from './served-tenant.ts'

const MAX_REASONS = 64

async function attested(t: ExecutionContext) {
  const served = await serveTenant(t)
  const { kbs, directory } = served
  const { publicKey: teePublicKey } = await createTeeKeyPair()
  const challenge = await kbs.challenge(Buffer.from('{"version":"0.4.0","tee":"sample","extra-params":""}'))
  const { nonce }: { nonce: string } = JSON.parse(challenge.content)
  const answer = encodeKbsAttestation({ nonce, teePublicKey, primaryEvidence: 'good', additionalEvidence: '' })
  const { content } = await kbs.attest(challenge.cookie, Buffer.from(answer))
  const { reasons } = await directory.find()
  /** Undefined, or the code of the refusal. */
  const tell = async (id: string): Promise<string | undefined> => {
    const report = { id, code: 'ERR_POLICY_DENIED', subject: 'CreateContainer c1', message: 'no' }
    const credentials = { cookie: undefined, authorization: `Bearer ${content.token}` }
    try {
      await reasons.add(Buffer.from(JSON.stringify(report)), credentials)
      return undefined
    } catch (error) {
      const cause = error instanceof RecordedError ? error.cause : error
      if (cause instanceof CaissonError) return cause.code
      throw error
    }
  }
  const told = async (): Promise<number> => {
    const records = await served.log.list({ limit: 500 })
    return records.filter(({ stage }) => stage === 'guest').length
  }
  return { tell, told }
}

const newId = (): string => randomBytes(8).toString('hex')

test('a report that is sent several times at once is kept once, and each sender is told that it is', async (t) => {
  const { tell, told } = await attested(t)
  const id = newId()
  t.deepEqual(await Promise.all(Array.from({ length: 5 }, () => tell(id))), Array.from({ length: 5 }))
  t.is(await told(), 1)
})

test('of more reports at once than a guest may tell, no more are kept', async (t) => {
  const { tell, told } = await attested(t)
  const answers = await Promise.all(Array.from({ length: MAX_REASONS + 20 }, () => tell(newId())))
  t.is(await told(), MAX_REASONS)
  t.is(answers.filter((code) => code === undefined).length, MAX_REASONS)
  t.is(answers.filter((code) => code === 'ERR_REASON_REFUSED').length, 20)
})
