/** A monitor process that is a plain child of ours: for tests and for programs that accept that it outlives their crash. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { UnavailableError } from '#protocol/errors'
import type { VmExit, VmProcess } from './types.ts'

const STDERR_CHARS = 8192

/** @throws UnavailableError ERR_PROGRAM_MISSING */
export async function spawnVmProcess(argv: readonly string[]): Promise<VmProcess> {
  const [program = '', ...args] = argv
  const child = spawn(program, args, { stdio: ['ignore', 'ignore', 'pipe'], detached: true })
  child.on('error', () => undefined)
  let stderr = ''
  child.stderr.setEncoding('utf8')
  child.stderr.on('data', (text: string) => {
    stderr = (stderr + text).slice(-STDERR_CHARS)
  })
  const exited = new Promise<VmExit>((resolve) => {
    child.once('close', (code, signal) => resolve({ code: code ?? undefined, signal: signal ?? undefined, stderr }))
  })
  try {
    await once(child, 'spawn')
  } catch (cause) {
    throw new UnavailableError('ERR_PROGRAM_MISSING', `${program} cannot be started`, {
      hint: 'Install it, or check that it is on PATH',
      cause,
    })
  }
  return { pid: child.pid ?? 0, exited, kill: () => child.kill('SIGKILL') }
}
