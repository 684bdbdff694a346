/**
 * A real software TPM (swtpm) on a Unix socket, with an EK certificate of a CA made for the test, and a firmware event
 * log that is consistent with its PCRs: the test plays firmware and init.
 */
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { cpSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { ExecutionContext } from 'ava'
import { createTpmCa, manufactureTpm } from '#vmm/swtpm'

export interface TestCa {
  /** State of a TPM that the CA certified. Booting copies it: making one takes longer than most tests. */
  readonly tpmState: string
  readonly rootPem: string
  readonly intermediatePem: string
}

export interface TestTpm {
  submit(command: Uint8Array): Promise<Uint8Array>
  eventLog(): Promise<Uint8Array>
  /** Extends the SHA-256 bank, as init and the agent do. */
  extend(pcr: number, digest: Uint8Array): Promise<void>
}

/** For `test.before`: making a CA takes seconds, so a file shares one. */
export async function makeTpmCa(): Promise<TestCa & { remove(): void }> {
  const directory = mkdtempSync(join(tmpdir(), 'caisson-tpmca-'))
  const ca = await createTpmCa(join(directory, 'ca'))
  const tpmState = join(directory, 'tpm')
  await manufactureTpm({ stateDir: tpmState, ca, name: 'test' })
  return {
    tpmState,
    rootPem: readFileSync(ca.rootPem, 'utf8'),
    intermediatePem: readFileSync(ca.intermediatePem, 'utf8'),
    remove: () => rmSync(directory, { recursive: true }),
  }
}

const EV_NO_ACTION = 3
const EV_EVENT_TAG = 6
/** Text that was measured. */
export const EV_IPL = 13

/** One boot of the measured firmware: what each PCR is extended with, in order. */
export const BOOT_EVENTS: readonly { readonly pcr: number; readonly data: string }[] = [
  { pcr: 0, data: 'firmware' },
  { pcr: 2, data: 'option roms' },
  { pcr: 4, data: 'kernel' },
  { pcr: 7, data: 'secure boot off' },
  { pcr: 9, data: 'command line' },
]

/** A TPM after such a boot, with the initdata measured into PCR 8. */
export async function bootTpm(
  t: Pick<ExecutionContext, 'teardown'>,
  testCa: TestCa,
  boot: { initdata: Uint8Array; events?: typeof BOOT_EVENTS },
): Promise<TestTpm> {
  const stateDir = mkdtempSync(join(tmpdir(), 'caisson-tpm-'))
  t.teardown(() => rmSync(stateDir, { recursive: true, force: true }))
  cpSync(testCa.tpmState, stateDir, { recursive: true })
  const tpm = await startTpm(t, stateDir)
  const events = boot.events ?? BOOT_EVENTS
  for (const { pcr, data } of events) await tpm.extend(pcr, sha256(data))
  await tpm.extend(8, sha256(boot.initdata))
  return { ...tpm, eventLog: async () => bootEventLog(events) }
}

async function startTpm(t: Pick<ExecutionContext, 'teardown'>, stateDir: string): Promise<Omit<TestTpm, 'eventLog'>> {
  const socketPath = join(stateDir, 'tpm.sock')
  const child = spawn(
    'swtpm',
    [
      'socket',
      '--tpm2',
      '--tpmstate',
      `dir=${stateDir}`,
      '--server',
      `type=unixio,path=${socketPath}`,
      '--flags',
      'startup-clear',
      '--terminate', // with the connection, also when this process dies without its teardowns
    ],
    { stdio: 'ignore' },
  )
  const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()))
  t.teardown(async () => {
    child.kill()
    await exited
  })
  const socket = await connectTo(socketPath, () => child.exitCode === null)
  t.teardown(() => socket.destroy())
  let last: Promise<unknown> = Promise.resolve()
  const submit = (command: Uint8Array): Promise<Uint8Array> => {
    const answer = last.then(() => exchange(socket, command))
    last = answer.catch(() => undefined)
    return answer
  }
  return {
    submit,
    extend: async (pcr, digest) => {
      const response = await submit(extendCommand(pcr, digest))
      if (Buffer.from(response).readUInt32BE(6) !== 0)
        throw new Error(`TPM2_PCR_Extend: ${Buffer.from(response).toString('hex')}`)
    },
  }
}

/** swtpm cannot say when it listens: a socket that is not there yet, or not listened to yet, is tried again. */
async function connectTo(path: string, isAlive: () => boolean): Promise<Socket> {
  for (;;) {
    const socket = connect(path)
    try {
      await once(socket, 'connect')
      return socket
    } catch (error) {
      if (!isAlive()) throw error
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
  }
}

/** One command, one response; its header tells its length. */
function exchange(socket: Socket, command: Uint8Array): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    let response = Buffer.alloc(0)
    const onData = (chunk: Buffer): void => {
      response = Buffer.concat([response, chunk])
      if (response.length < 10 || response.length < response.readUInt32BE(2)) return
      socket.off('data', onData).off('close', onClose)
      resolve(new Uint8Array(response))
    }
    const onClose = (): void => reject(new Error('swtpm closed the connection'))
    socket.on('data', onData).on('close', onClose)
    socket.write(command)
  })
}

/** TPM2_PCR_Extend with an empty password session, one SHA-256 digest. */
function extendCommand(pcr: number, digest: Uint8Array): Uint8Array {
  const body = Buffer.from(
    `00000182${pcr.toString(16).padStart(8, '0')}00000009400000090000000000${'00000001000b'}`,
    'hex',
  )
  const size = Buffer.alloc(4)
  size.writeUInt32BE(6 + body.length + digest.length)
  return Buffer.concat([Buffer.from('8002', 'hex'), size, body, digest])
}

/** TCG PC Client Platform Firmware Profile, section 10: a crypto-agile log with the SHA-256 bank alone. */
/** @param type of the events. Their data is text: a reader of tagged events finds it unreadable. */
export function bootEventLog(events: typeof BOOT_EVENTS = BOOT_EVENTS, type: number = EV_EVENT_TAG): Uint8Array {
  const u32 = (value: number): Buffer => {
    const bytes = Buffer.alloc(4)
    bytes.writeUInt32LE(value)
    return bytes
  }
  const specId = Buffer.concat([
    Buffer.from('Spec ID Event03\0', 'latin1'),
    u32(0), // platformClass
    Buffer.of(0, 2, 0, 2), // specVersionMinor, Major, Errata, uintnSize (2: 64 bits)
    u32(1), // numberOfAlgorithms
    Buffer.of(0x0b, 0, 32, 0), // TPM_ALG_SHA256, 32 bytes
    Buffer.of(0), // vendorInfoSize
  ])
  const first = Buffer.concat([u32(0), u32(EV_NO_ACTION), Buffer.alloc(20), u32(specId.length), specId])
  const rest = events.map(({ pcr, data }) =>
    Buffer.concat([
      u32(pcr),
      u32(type),
      u32(1),
      Buffer.of(0x0b, 0),
      sha256(data),
      u32(Buffer.byteLength(data)),
      Buffer.from(data),
    ]),
  )
  return new Uint8Array(Buffer.concat([first, ...rest]))
}

/** Value of a PCR after these extensions, hex. */
export function pcrAfter(...digests: Uint8Array[]): string {
  return digests
    .reduce<Uint8Array>((pcr, digest) => createHash('sha256').update(pcr).update(digest).digest(), Buffer.alloc(32))
    .reduce((text, byte) => text + byte.toString(16).padStart(2, '0'), '')
}

export function sha256(data: string | Uint8Array): Buffer {
  return createHash('sha256').update(data).digest()
}
