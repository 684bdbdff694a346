/**
 * A VM with nothing but the guest's kernel and one program (native/host/test/vsock_guest.c) that serves vsock ports.
 * `CAISSON_TEST_KERNEL` names another bzImage.
 */
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { LOCK_FILE, mkfsErofs } from '#guest/build/build'
import { buildKernel } from '#guest/build/kernel'
import { parseGuestLock } from '#guest/build/lock'
import { buildNative } from '../../../native/build.mjs'
import { type Teardown, TestPod } from './pod.ts'
import { dial, NotConnectedError, readLine } from './stream.ts'

/** Ports of the guest program. */
export const ECHO = 7
export const SINK = 9
export const HALF_CLOSE = 11
export const SOURCE = 19
export const DEAF = 21
const CONTROL = 99

export class TestVm {
  readonly pod: TestPod

  constructor(pod: TestPod) {
    this.pod = pod
  }

  dial(port: number): Promise<Socket> {
    return dial(this.pod.vsockPath, port)
  }

  /** The answer of the guest's control port to one line. */
  async control(line: string): Promise<string | undefined> {
    const socket = await this.dial(CONTROL)
    socket.end(`${line}\n`)
    const answer = await readLine(socket)
    socket.destroy()
    return answer
  }

  /** Resolves when the guest's program listens; the kernel's driver is there a moment earlier. */
  async ready(): Promise<void> {
    for (let nth = this.pod.events.filter(({ event }) => event === 'guest-connected').length || 1; ; ) {
      await this.pod.event('guest-connected', nth)
      try {
        await this.control('left')
        return
      } catch (error) {
        if (!(error instanceof NotConnectedError)) throw error
      }
    }
  }

  async qmp(command: string): Promise<void> {
    const socket = connect(join(this.pod.dir, 'qmp.sock'))
    await once(socket, 'connect')
    await readLine(socket)
    for (const execute of ['qmp_capabilities', command]) {
      socket.write(`${JSON.stringify({ execute })}\n`)
      for (let answer = await readLine(socket); !answer?.includes('"return"'); answer = await readLine(socket)) {
        if (answer === undefined || answer.includes('"error"')) throw new Error(`QMP ${execute}: ${answer}`)
      }
    }
    socket.destroy()
  }
}

/** Boots; the machine ends with the scope. */
export async function startVm(
  scope: Teardown,
  options: { readonly reboots?: boolean; readonly holdMs?: number } = {},
): Promise<TestVm> {
  const { reboots = false, holdMs = 0 } = options
  const [kernel, root] = [await testKernel(), await rootDisk(scope)]
  const machine = [
    '-M',
    'q35,memory-backend=mem0',
    '-cpu',
    'max',
    '-accel',
    'tcg,thread=multi',
    '-smp',
    '2',
    '-m',
    '512',
  ]
  const memory = ['-object', 'memory-backend-memfd,id=mem0,size=512M,share=on']
  const plain = ['-nodefaults', '-no-user-config', '-display', 'none', '-serial', 'stdio']
  const append = 'root=/dev/vda rootfstype=erofs ro init=/init console=ttyS0 quiet panic=-1'
  const disk = ['-drive', `file=${root},if=none,id=root,format=raw,readonly=on`, '-device', 'virtio-blk-pci,drive=root']
  const command = (dir: string) => [
    'qemu-system-x86_64',
    ...[machine, memory, plain, disk].flat(),
    ...(reboots ? [] : ['-no-reboot']),
    ...['-kernel', kernel, '-append', append],
    ...['-chardev', `socket,id=vsock,path=${dir}/vhost.sock`, '-device', 'vhost-user-vsock-pci,chardev=vsock'],
    ...['-qmp', `unix:${dir}/qmp.sock,server=on,wait=off`],
  ]
  const vm = new TestVm(new TestPod(scope, command, ['--connect-hold-ms', String(holdMs)]))
  await vm.ready()
  return vm
}

async function testKernel(): Promise<string> {
  const given = process.env.CAISSON_TEST_KERNEL
  if (given !== undefined) return given
  const { kernel } = parseGuestLock(readFileSync(LOCK_FILE, 'utf8'))
  return (await buildKernel(kernel, { onProgress: () => {} })).file
}

async function rootDisk(scope: Teardown): Promise<string> {
  const { 'vsock-guest': guest = '' } = await buildNative({ only: ['vsock-guest'] })
  const folder = mkdtempSync(join(tmpdir(), 'caisson-root-'))
  scope.teardown(() => rmSync(folder, { recursive: true, force: true }))
  mkdirSync(join(folder, 'root/dev'), { recursive: true })
  copyFileSync(guest, join(folder, 'root/init'))
  const file = join(folder, 'root.img')
  execFileSync(await mkfsErofs(), ['--quiet', file, join(folder, 'root')])
  return file
}
