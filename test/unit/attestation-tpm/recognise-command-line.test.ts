/** Kernel command lines of which evidence holds only a digest. */
import { createHash } from 'node:crypto'
import test from 'ava'
import { explainPcrMismatch } from '#attestation/measure/tpm/explain-pcr-mismatch'
import { loadOptions } from '#attestation/measure/tpm/linux-boot'
import { recogniseCommandLine } from '#attestation/measure/tpm/recognise-command-line'

const PREDICTED = 'console=hvc0 ro root=/dev/dm-0 rd.verity=1 quiet panic=1 systemd.unit=guest'
const sha256 = (line: string): Uint8Array => createHash('sha256').update(loadOptions(line)).digest()

function explain(booted: string, known: readonly string[] = []): string {
  const event = { pcr: 9, type: 6, digests: { sha256: sha256(booted) }, data: new Uint8Array() }
  return explainPcrMismatch({
    pcr: 9,
    predicted: [
      {
        pcr: 9,
        type: 'EV_EVENT_TAG',
        description: 'command line',
        digest: Buffer.from(sha256(PREDICTED)).toString('hex'),
      },
    ],
    log: { banks: ['sha256'], events: [event] } as never,
    found: '00',
    commandLine: { predicted: PREDICTED, known },
  }).message
}

test('a command line that only its digest shows is told token by token, where it is a known one', (t) => {
  const other = PREDICTED.replace('systemd.unit=guest', 'systemd.unit=rescue')
  t.is(
    explain(other, ['unrelated', other]),
    'the kernel command line differs at token 7: predicted "systemd.unit=guest", booted "systemd.unit=rescue"',
  )
  t.is(explain(`${PREDICTED} debug`), 'the kernel command line differs at token 8: predicted nothing, booted "debug"')
  t.is(
    explain(PREDICTED.replace('rd.verity=1 ', '')),
    'the kernel command line differs at token 4: predicted "rd.verity=1", booted "quiet"',
  )
  t.is(explain(`${PREDICTED} something=else`), 'the kernel command line differs')
})

test('lines that could not be load options are not tried', (t) => {
  const tried: string[] = []
  const isMeasured = (line: string): boolean => tried.push(line) < 0
  const known = ['vga=3', 'caf\u00e9', 'x'.repeat(3000)]
  t.is(recogniseCommandLine({ predicted: 'a b', known, isMeasured }), undefined)
  for (const line of known) t.false(tried.includes(line))
})
