/**
 * Runs the kernel's own build so that its output depends on source, configuration and compiler alone: everything that
 * kbuild would take from the machine (user, host, time, locale, file modes) is fixed, and the tree is built in place, which
 * keeps its path out of the image (Linux Documentation/kbuild/reproducible-builds.rst).
 */
import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { UnavailableError } from '#protocol/errors'

/** Lines that a whole build prints with this configuration; progress is the share already seen. */
const EXPECTED_LINES = 1950

/** Last lines kept for the error message. */
const KEPT_LINES = 12

export async function runMake(
  tree: string,
  fragment: string,
  options: { jobs: number; onPercent: (percent: number) => void },
): Promise<void> {
  await writeFile(join(tree, 'caisson.fragment'), fragment)
  await make(tree, ['KCONFIG_ALLCONFIG=caisson.fragment', 'allnoconfig'], () => {})
  let lines = 0
  let reported = -1
  await make(tree, [`-j${options.jobs}`, 'bzImage'], () => {
    lines += 1
    const percent = Math.min(99, Math.floor((100 * lines) / EXPECTED_LINES))
    if (percent > reported) options.onPercent(percent)
    reported = Math.max(reported, percent)
  })
}

async function make(tree: string, args: readonly string[], onLine: () => void): Promise<void> {
  // The build dies with us: it must not go on writing into a directory that the next run removes.
  const script = 'umask 022; exec setpriv --pdeathsig KILL make "$@" 2>&1'
  const child = spawn('sh', ['-c', script, 'make', ...args], {
    cwd: tree,
    stdio: ['ignore', 'pipe', 'inherit'],
    env: {
      PATH: process.env.PATH,
      LC_ALL: 'C',
      KBUILD_BUILD_TIMESTAMP: 'Thu Jan  1 00:00:00 UTC 1970',
      KBUILD_BUILD_USER: 'caisson',
      KBUILD_BUILD_HOST: 'caisson',
      KBUILD_BUILD_VERSION: '1',
      SOURCE_DATE_EPOCH: '0',
    },
  })
  const [code, tail] = await Promise.all([exitCode(child), follow(child.stdout, onLine)])
  if (code !== 0) {
    throw new UnavailableError('ERR_KERNEL_BUILD', `make ${args.join(' ')} ended with ${code}:\n${tail.join('\n')}`, {
      hint: 'apt-get install make gcc flex bison bc libelf-dev libssl-dev lz4; 3 GiB of free disk are needed.',
    })
  }
}

async function follow(output: Readable, onLine: () => void): Promise<readonly string[]> {
  const tail: string[] = []
  let rest = ''
  for await (const chunk of output.setEncoding('utf8')) {
    const lines = (rest + String(chunk)).split('\n')
    rest = lines.pop() ?? ''
    for (const line of lines) {
      tail.push(line)
      if (tail.length > KEPT_LINES) tail.shift()
      onLine()
    }
  }
  return tail
}

function exitCode(child: ChildProcessByStdio<null, Readable, null>): Promise<number | string> {
  return new Promise((resolve) => {
    child.once('error', (error) => resolve(error.message))
    child.once('close', (code, signal) => resolve(code ?? signal ?? 'no status'))
  })
}
