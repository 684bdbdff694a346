import test from 'ava'
import { TpmMeasurement } from '#guest/agent/measurement'
import { nodeCrypto } from '#protocol/node/crypto'
import { type AdmittedImage, admittedImageDigest } from '#protocol/tpm-messages'

const image = (container: string, letter = 'a'): AdmittedImage => ({
  container,
  manifest: `sha256:${letter.repeat(64)}`,
  config: `sha256:${'c'.repeat(64)}`,
  diffIds: [`sha256:${'d'.repeat(64)}`],
})

/** TPM2_PCR_Extend's answer (TPM 2.0 part 3, section 22.2): a session's header and no parameters. */
const EXTENDED = Uint8Array.of(0x80, 0x02, 0, 0, 0, 19, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0)

function setUp(options: { attest?: () => Promise<void> } = {}) {
  const steps: string[] = []
  const tpm = {
    submit: async (command: Uint8Array) => {
      const pcr = new DataView(command.buffer, command.byteOffset).getUint32(10)
      steps.push(`extend ${pcr} ${Buffer.from(command.slice(-32)).toString('hex')}`)
      return EXTENDED
    },
    eventLog: async () => new Uint8Array(),
  }
  const measurement = new TpmMeasurement(tpm, nodeCrypto, async (images) => {
    steps.push(`attest ${images.map(({ container }) => container).join(' ')}`)
    await options.attest?.()
  })
  return { steps, measurement }
}

const extension = (admitted: AdmittedImage) =>
  `extend 15 ${Buffer.from(admittedImageDigest(nodeCrypto, admitted)).toString('hex')}`

test('an image is extended into PCR 15, then attested, and only then admitted', async (t) => {
  let answer: () => void = () => undefined
  const { steps, measurement } = setUp({ attest: () => new Promise((resolve) => (answer = resolve)) })
  let admitted = false
  const admission = measurement.admit(image('web')).then((isNew) => {
    admitted = true
    return isNew
  })
  while (steps.length < 2) await new Promise((resolve) => setImmediate(resolve))
  t.deepEqual(steps, [extension(image('web')), 'attest web'])
  t.false(admitted, 'the verifier has not answered')
  answer()
  t.true(await admission)
})

test('images admitted at the same time are extended and attested one after the other, in the order of the list', async (t) => {
  const { steps, measurement } = setUp()
  await Promise.all([measurement.admit(image('web')), measurement.admit(image('db', 'b'))])
  t.deepEqual(steps, [extension(image('web')), 'attest web', extension(image('db', 'b')), 'attest web db'])
})

test('the same image is measured once for each name in the policy', async (t) => {
  const { steps, measurement } = setUp()
  t.true(await measurement.admit(image('web')))
  t.false(await measurement.admit(image('web')))
  t.true(await measurement.admit(image('other')))
  t.is(steps.length, 4)
})

test('what the verifier refused is not admitted later without asking it again', async (t) => {
  let refuse = true
  const { steps, measurement } = setUp({ attest: () => (refuse ? Promise.reject(new Error('no')) : Promise.resolve()) })
  await t.throwsAsync(measurement.admit(image('web')), { message: 'no' })
  await t.throwsAsync(measurement.admit(image('web')), { message: 'no' })
  refuse = false
  t.true(await measurement.admit(image('web')))
  // Extended once: PCR 15 holds what the list says.
  t.deepEqual(steps, [extension(image('web')), 'attest web', 'attest web', 'attest web'])
})
