/** `npm run test:repro` that is interrupted: its second build is half a gigabyte in a temporary folder. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdir, readFile, readlink } from 'node:fs/promises'
import { constants } from 'node:os'
import { createInterface } from 'node:readline'
import test from 'ava'
import { scratchFolder } from './machine.ts'

const ROOT = new URL('../../..', import.meta.url).pathname

/** Processes that work in a folder. */
async function workingIn(folder: string): Promise<readonly string[]> {
  const found: string[] = []
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    const place = await readlink(`/proc/${pid}/cwd`).catch(() => '')
    if (!place.startsWith(folder)) continue
    found.push(await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => ''))
  }
  return found
}

const MOMENTS = [
  ['while it builds', async (folder: string) => (await readdir(folder)).length > 0],
  ['while it copies', async (folder: string) => (await readdir(folder, { recursive: true })).some(isCopy)],
  [
    'while it builds again',
    async (folder: string) => (await workingIn(folder)).some((words) => words.includes('build')),
  ],
] as const

function isCopy(path: string): boolean {
  return path.endsWith('a folder/with another name')
}

for (const [moment, isThere] of MOMENTS) {
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    test.serial(`a comparison of two builds that gets ${signal} ${moment} leaves no file and no process`, async (t) => {
      t.timeout(600_000)
      const folder = await scratchFolder(t)
      const repro = spawn(process.execPath, ['tools/repro/main.ts', '--root-only'], {
        cwd: ROOT,
        stdio: ['ignore', 'pipe', 'pipe'],
        env: { ...process.env, TMPDIR: folder },
      })
      const ended = once(repro, 'exit')
      const said: string[] = []
      createInterface({ input: repro.stderr }).on('line', (line) => said.push(line))
      while (!(await isThere(folder))) {
        if (repro.exitCode !== null) throw new Error(`it ended before: ${said.join('\n')}`)
        await new Promise((resolve) => setTimeout(resolve, 20))
      }
      repro.kill(signal)
      t.deepEqual(await ended, [128 + constants.signals[signal], null], said.join('\n'))
      t.deepEqual(await readdir(folder), [])
      t.deepEqual(await workingIn(folder), [])
    })
  }
}
