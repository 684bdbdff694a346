/** Boots a guest kernel under OVMF with a software TPM, and compares what was measured with what was predicted. */
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import test from 'ava'
import { explainPcrMismatch } from '#attestation/measure/tpm/explain-pcr-mismatch'
import { predictPcrs } from '#attestation/measure/tpm/predict-pcrs'
import { parseEventLog } from '#attestation/tpm/parse/event-log'
import { replayEventLog } from '#attestation/tpm/verify/replay'
import { buildGuest, mkfsErofs } from '#guest/build/build'
import { toHex } from '#protocol/encoding'
import { nodeCrypto } from '#protocol/node/crypto'

const run = promisify(execFile)
const FIRMWARE = '/usr/share/ovmf/OVMF.fd'
const COMMAND_LINE = 'root=/dev/vda rootfstype=erofs ro init=/init console=ttyS0 quiet loglevel=1 panic=-1'
const BOOT_TIMEOUT_MS = 120_000
const HOST_CHOSEN_PCRS = [1, 3, 5, 6]

let directory: string
let kernel: string
test.before(async (t) => {
  t.timeout(20 * 60_000)
  directory = await mkdtemp(join(tmpdir(), 'caisson-predict-'))
  kernel = (await buildGuest()).kernelPath
  const root = join(directory, 'root')
  for (const name of ['sys', 'dev', 'proc']) await mkdir(join(root, name), { recursive: true })
  const source = new URL('../../fixtures/tpm/log-init.c', import.meta.url).pathname
  await run('gcc', ['-static', '-Os', '-o', join(root, 'init'), source])
  await run(await mkfsErofs(), ['-T0', join(directory, 'root.img'), root])
})
test.after.always(() => rm(directory, { recursive: true, force: true }))

interface Machine {
  readonly name: string
  readonly memoryMib: number
  readonly vcpus: number
  readonly disks: number
  readonly kernel: string
  readonly commandLine: string
}

interface Boot {
  readonly log: Uint8Array
  /** Hex, by number, as the kernel read them from the TPM. */
  readonly pcrs: ReadonlyMap<number, string>
}

async function boot(machine: Machine): Promise<Boot> {
  const state = join(directory, machine.name)
  await mkdir(state)
  await run('swtpm_setup', ['--tpm2', '--tpmstate', state, '--pcr-banks', 'sha256'])
  const socket = join(state, 'c')
  const swtpm = spawn(
    'swtpm',
    ['socket', '--tpm2', '--tpmstate', `dir=${state}`, '--terminate'].concat([
      '--ctrl',
      `type=unixio,path=${socket}`,
      '--log',
      'level=0',
    ]),
    { stdio: 'ignore' },
  )
  const swtpmEnded = once(swtpm, 'exit')
  await run('sh', ['-c', `until [ -S ${socket} ]; do sleep 0.02; done`], { timeout: BOOT_TIMEOUT_MS })
  const console = join(state, 'console')
  try {
    await run('qemu-system-x86_64', qemuArguments(machine, { socket, console }), { timeout: BOOT_TIMEOUT_MS })
  } finally {
    swtpm.kill()
    await swtpmEnded
  }
  return readConsole(await readFile(console, 'latin1'))
}

function qemuArguments(machine: Machine, files: { socket: string; console: string }): string[] {
  const disks = Array.from({ length: machine.disks }, (_, index) => [
    ['-drive', `if=none,id=d${index},file=${join(directory, 'root.img')},format=raw,readonly=on`],
    ['-device', `virtio-blk-pci,drive=d${index}`],
  ])
  return [
    ['-nodefaults', '-no-user-config', '-no-reboot', '-display', 'none', '-M', 'q35', '-accel', 'tcg,thread=single'],
    ['-cpu', 'max,host-phys-bits=off,phys-bits=40', '-smp', String(machine.vcpus), '-m', String(machine.memoryMib)],
    ['-global', 'ICH9-LPC.disable_s3=1', '-global', 'ICH9-LPC.disable_s4=1'],
    ['-bios', FIRMWARE, '-kernel', machine.kernel, '-append', machine.commandLine],
    [
      '-chardev',
      `socket,id=c,path=${files.socket}`,
      '-tpmdev',
      'emulator,id=t,chardev=c',
      '-device',
      'tpm-crb,tpmdev=t',
    ],
    ['-serial', `file:${files.console}`],
    disks,
  ].flat(3)
}

function readConsole(text: string): Boot {
  const log = text.split('LOG-BEGIN')[1]?.split('LOG-END')[0]?.replace(/\s/g, '') ?? ''
  const pcrs = [...text.matchAll(/^PCR (\d+) ([0-9A-F]{64})/gm)].map(
    ([, pcr, value]) => [Number(pcr), (value ?? '').toLowerCase()] as const,
  )
  return { log: new Uint8Array(Buffer.from(log, 'base64')), pcrs: new Map(pcrs) }
}

async function predict(machine: Machine) {
  return predictPcrs({
    firmware: await readFile(FIRMWARE),
    kernel: await readFile(machine.kernel),
    cmdline: machine.commandLine,
    initdata: new Uint8Array(),
    vcpus: machine.vcpus,
    memoryMib: machine.memoryMib,
  })
}

const shapes: readonly Omit<Machine, 'kernel' | 'commandLine'>[] = [
  { name: 'small', memoryMib: 512, vcpus: 1, disks: 1 },
  { name: 'large', memoryMib: 3072, vcpus: 2, disks: 3 },
  { name: 'between', memoryMib: 2560, vcpus: 1, disks: 2 },
]

for (const shape of shapes) {
  test.serial(
    `PCRs of a boot with ${shape.memoryMib} MiB, ${shape.vcpus} CPUs, ${shape.disks} disks are as predicted`,
    async (t) => {
      t.timeout(2 * BOOT_TIMEOUT_MS)
      const machine = { ...shape, kernel, commandLine: COMMAND_LINE }
      const [booted, predicted] = [await boot(machine), await predict(machine)]
      for (const pcr of [0, 2, 4, 7, 9])
        t.is(booted.pcrs.get(pcr) ?? 'none', predicted.sha256[pcr] ?? 'not predicted', `PCR ${pcr}`)
      t.is(booted.pcrs.get(8), '00'.repeat(32), 'PCR 8 is free for initdata')
      t.is(booted.pcrs.get(15), '00'.repeat(32), 'PCR 15 is free for images')
      const log = parseEventLog(booted.log)
      for (const [pcr, value] of replayEventLog(nodeCrypto, log, 'sha256'))
        t.is(toHex(value), booted.pcrs.get(pcr) ?? 'none')
      const inLog = log.events.filter(({ pcr }) => !HOST_CHOSEN_PCRS.includes(pcr))
      const events = predicted.events.filter(({ pcr }) => pcr !== 8)
      t.deepEqual(
        inLog.map(({ pcr, digests }) => `${pcr} ${toHex(digests.sha256 ?? new Uint8Array())}`).sort(),
        events.map(({ pcr, digest }) => `${pcr} ${digest}`).sort(),
      )
    },
  )
}

test.serial(
  'another command line shows in PCR 9 alone, and is explained by its first token that differs',
  async (t) => {
    t.timeout(2 * BOOT_TIMEOUT_MS)
    const expected = await predict({ name: 'x', memoryMib: 512, vcpus: 1, disks: 1, kernel, commandLine: COMMAND_LINE })
    const commandLine = COMMAND_LINE.replace(' quiet ', ' quiet nokaslr ')
    const booted = await boot({ name: 'argument', memoryMib: 512, vcpus: 1, disks: 1, kernel, commandLine })
    const different = [0, 2, 4, 7, 9].filter((pcr) => booted.pcrs.get(pcr) !== expected.sha256[pcr])
    t.deepEqual(different, [9])
    const explain = (reported: string) =>
      explainPcrMismatch({
        pcr: 9,
        predicted: expected.events,
        log: parseEventLog(booted.log),
        found: booted.pcrs.get(9) ?? '',
        commandLine: { predicted: COMMAND_LINE, reported },
      }).message
    t.is(explain(commandLine), 'the kernel command line differs at token 7: predicted "loglevel=1", booted "nokaslr"')
    t.is(explain(COMMAND_LINE), 'the kernel command line differs, and is not what the guest says it is')
  },
)
