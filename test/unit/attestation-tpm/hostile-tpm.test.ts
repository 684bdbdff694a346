/** The device may be the host's emulation: whatever it answers, the guest ends with an error of ours, and soon. */
import test from 'ava'
import fc from 'fast-check'
import { createPrimary, flushContext, quote, readNvIndex, readSomePcrs } from '#attestation/tpm/guest/commands'
import { runCommand, type TpmDevice, TpmResponseError } from '#attestation/tpm/guest/device'
import { loadEndorsementKey } from '#attestation/tpm/guest/endorsement-key'
import { readPcrs } from '#attestation/tpm/guest/pcrs'
import { attestationKeyTemplate } from '#attestation/tpm/guest/tpm-attestation'
import { CaissonError, MalformedError } from '#protocol/errors'

const hex = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, 'hex'))
const SELECTION = { bank: 'sha256', pcrs: [0, 8] } as const

// Captured answers of a TPM
const PCR_READ =
  '800100000060000000000000001600000001000b030101000000000200200000000000000000000000000000000000000000000000000000000000000000002012db50484c569ef2d5446a9790ee2be42a913d1c755cde998469926762f54066'
const CREATE_PRIMARY =
  '80020000013800000000800000010000012100580023000b00050472000000100018000b000300100020fb5f7e25c28fb4a357574e44fb2d17577fd94512a3baa29468d7a5909f3ca3640020c267d821b241ea8a5220e303707ef631aeb22f36c2e25ef57483cf2d2f85c6c00037000000000020e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b85501001000044000000b00044000000b0000002028d026fafd749106743e27c4280551585e5d17668eb521835ed60127effc05d480214000000b00407cd2c2efbed106db84c648ceb61b7a61b432861b757a941b1891a78490f06df4562b851744344944369097999042c37284ca073cd18a80d2aec824e60cdd93050022000b8b256b61dcc1d8e0faaad51d61f00e5ec3207f4a8daf47ea1fd3ef1df6ffb3980000010000'
const QUOTE =
  '8002000000ee00000000000000db0091ff54434780180022000b801901f53f4761580c1d81067ed5e5e639a109ab0be69d4a1c7a491650b453c4002063dadf58b3a69693c8fac7605cb8dad5a7651acf00787b9492d1d339084e0827000000000004807c000000060000000001201910230016363600000001000b0301010000202d5ea31f70d640e790d2278c59a277cabedb5b5931bb4564b217773812cf39240018000b002012a73175d9eedd92c0866d88ce8b1302bc2aedfe4188d66e08f4d48af94ac07a0020454798500e1f3f224c23257fac75e5bd3bbbd32bf753cfb8a7899ce928dae0080000010000'

const commands: readonly [name: string, answer: string, run: (device: TpmDevice) => Promise<unknown>][] = [
  ['PCR_Read', PCR_READ, (device) => readSomePcrs(device, SELECTION)],
  ['CreatePrimary', CREATE_PRIMARY, (device) => createPrimary(device, attestationKeyTemplate(new Uint8Array(32)))],
  ['Quote', QUOTE, (device) => quote(device, { ak: 1, qualifyingData: new Uint8Array(32), selection: SELECTION })],
]

const answering = (answer: Uint8Array): TpmDevice => ({ submit: () => Promise.resolve(answer) })

for (const [name, answer, run] of commands) {
  test(`an answer to ${name} is read, and refused when cut or lengthened anywhere`, async (t) => {
    const bytes = hex(answer)
    await t.notThrowsAsync(run(answering(bytes)))
    for (let length = 0; length < bytes.length; length++) {
      const cut = bytes.slice(0, length)
      if (length >= 6) new DataView(cut.buffer).setUint32(2, length)
      await t.throwsAsync(run(answering(cut)), { instanceOf: MalformedError }, `${length} bytes`)
    }
    await t.throwsAsync(run(answering(Buffer.concat([bytes, hex('00')]))), { code: 'ERR_TPM_RESPONSE_FORMAT' })
  })

  test(`whatever an answer to ${name} is changed to, it is read or refused`, async (t) => {
    const bytes = hex(answer)
    await fc.assert(
      fc.asyncProperty(fc.array(fc.tuple(fc.nat(bytes.length - 1), fc.nat(255)), { maxLength: 4 }), async (changes) => {
        const changed = bytes.slice()
        for (const [at, value] of changes) changed[at] = value
        try {
          await run(answering(changed))
        } catch (error) {
          if (!(error instanceof CaissonError)) throw error
        }
      }),
    )
    t.pass()
  })
}

test('an answer longer than any TPM gives is refused', async (t) => {
  const long = new Uint8Array(4097)
  long.set(hex('800100001001'))
  await t.throwsAsync(flushContext(answering(long), 1), { code: 'ERR_TPM_RESPONSE_FORMAT' })
})

test('a TPM that wants to be asked again for ever is given up', async (t) => {
  let asked = 0
  const device: TpmDevice = {
    submit: () => {
      asked++
      return Promise.resolve(hex('80010000000a00000922'))
    },
  }
  const error = await t.throwsAsync(flushContext(device, 1), { instanceOf: TpmResponseError })
  t.is(error.responseCode, 0x922)
  t.is(asked, 8)
})

test('PCRs that change all the time are given up', async (t) => {
  let counter = 0
  const pcrs = Array.from({ length: 9 }, (_, pcr) => pcr)
  const device: TpmDevice = {
    submit: (command) => {
      const first = command[17] === 0xff // bitmap of PCRs 0 to 7
      const count = first ? 8 : 1
      const values = '0020'.concat('00'.repeat(32)).repeat(count)
      const selection = `00000001000b03${first ? 'ff0000' : '000100'}`
      const body = `${(++counter).toString(16).padStart(8, '0')}${selection}${count.toString(16).padStart(8, '0')}${values}`
      return Promise.resolve(hex(`8001${(10 + body.length / 2).toString(16).padStart(8, '0')}00000000${body}`))
    },
  }
  await t.throwsAsync(readPcrs(device, { bank: 'sha256', pcrs }), { code: 'ERR_TPM_PCRS_MOVING' })
})

test('an NV index that says it is larger than a certificate is not read', async (t) => {
  const answer = hex('80010000001c00000000000e01c00002000b620728010000ffff0000')
  await t.throwsAsync(readNvIndex(answering(answer), 0x01c00002), { code: 'ERR_TPM_RESPONSE_FORMAT' })
})

test('an error other than "no such index" ends the search for a certificate', async (t) => {
  const error = await t.throwsAsync(loadEndorsementKey(answering(hex('80010000000a00000921'))), {
    code: 'ERR_TPM_RESPONSE',
  })
  t.regex(error?.message ?? '', /NV_ReadPublic: locked out/)
})

test('a command with a password expects an answer with one', async (t) => {
  const command = {
    name: 'X',
    code: 1,
    handles: [],
    authorizations: [],
    parameters: new Uint8Array(),
    outHandles: 0,
  } as const
  await t.throwsAsync(runCommand(answering(hex('80020000000a00000000')), command), { code: 'ERR_TPM_RESPONSE_FORMAT' })
})
