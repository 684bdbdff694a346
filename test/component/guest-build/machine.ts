/** Boots the built guest with a probe in place of the agent, and collects what the host can see of it. */
import { spawn, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { ExecutionContext } from 'ava'
import { buildGuest, type GuestImage } from '#guest/build/build'
import { startTpm } from '#vmm/swtpm'

export interface Boot {
  /** Codes on the console, in order. */
  readonly codes: readonly string[]
  /** All of the console. */
  readonly console: string
  /** What the probe reported, if it ran and was allowed to speak. */
  readonly probe: Readonly<Record<string, unknown>> | undefined
}

export interface BootOptions {
  readonly commandLine: string
  /** Contents of disks that call themselves "initdata". */
  readonly initdata?: readonly Uint8Array[]
  /** Contents of the root disk, if not the built one. */
  readonly root?: string
  readonly qemu?: readonly string[]
}

export function probeGuest(): Promise<GuestImage> {
  return buildGuest({ agent: fileURLToPath(new URL('probe-agent.cjs', import.meta.url)) })
}

/** The initdata disk as the host side writes it. */
export function initdataDisk(toml: string, header: { magic?: string; length?: bigint } = {}): Uint8Array {
  const body = Buffer.from(toml)
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(header.length ?? BigInt(body.length))
  const disk = Buffer.concat([Buffer.from(header.magic ?? 'CSINITD1'), length, body])
  return Buffer.concat([disk, Buffer.alloc((512 - (disk.length % 512)) % 512)])
}

export function extendedFromZero(toml: string): string {
  const digest = createHash('sha256').update(toml).digest()
  return createHash('sha256').update(Buffer.alloc(32)).update(digest).digest('hex')
}

export async function scratchFolder(t: ExecutionContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'caisson-test-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  return folder
}

/** Runs the machine until it turns itself off. */
export async function boot(t: ExecutionContext, guest: GuestImage, options: BootOptions): Promise<Boot> {
  const folder = await scratchFolder(t)
  const disks = [disk('root', options.root ?? guest.rootPath)]
  for (const [index, content] of (options.initdata ?? []).entries()) {
    const file = join(folder, `initdata${index}`)
    await writeFile(file, content)
    disks.push(disk('initdata', file, `initdata${index}`))
  }
  const machine = ['-M', 'q35', '-cpu', 'max', '-accel', 'tcg,thread=multi', '-smp', '2', '-m', '512']
  const plain = ['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot', '-serial', 'stdio']
  const kernel = ['-kernel', guest.kernelPath, '-append', options.commandLine]
  const args = [...machine, ...plain, ...kernel, ...disks.flat(), ...(options.qemu ?? [])]
  const child = spawn('qemu-system-x86_64', args, { stdio: ['ignore', 'pipe', 'inherit'] })
  t.teardown(() => child.kill('SIGKILL'))
  let text = ''
  for await (const chunk of child.stdout.setEncoding('utf8')) text += String(chunk)
  const report = /^probe (\{.*\})\s*$/m.exec(text)?.[1]
  return {
    console: text,
    codes: [...text.matchAll(/caisson: ([a-z-]+)/g)].map(([, code = '']) => code),
    probe: report === undefined ? undefined : JSON.parse(report),
  }
}

/** A software TPM for one boot; the arguments connect QEMU to it. */
export async function softwareTpm(t: ExecutionContext, banks: string): Promise<readonly string[]> {
  const folder = await scratchFolder(t)
  const state = join(folder, 'state')
  await mkdir(state)
  const setup = spawnSync('swtpm_setup', ['--tpm2', '--tpmstate', state, '--pcr-banks', banks], { encoding: 'utf8' })
  if (setup.status !== 0) throw new Error(`swtpm_setup: ${setup.stdout}${setup.stderr}`)
  const socket = join(folder, 'tpm.sock')
  const tpm = await startTpm({ stateDir: state, socket })
  t.teardown(() => tpm[Symbol.asyncDispose]())
  return ['-chardev', `socket,id=tpm,path=${socket}`, '-tpmdev', 'emulator,id=tpm0,chardev=tpm'].concat([
    '-device',
    'tpm-tis,tpmdev=tpm0',
  ])
}

function disk(serial: string, file: string, id = serial): readonly string[] {
  const drive = `file=${file},if=none,id=${id},format=raw,read-only=on`
  return ['-drive', drive, '-device', `virtio-blk-pci,drive=${id},serial=${serial}`]
}
