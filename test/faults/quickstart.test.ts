/** A quickstart that is killed at any stage, however much of it, leaves nothing that the next one trips over. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import anyTest, { type ExecutionContext, type TestFn } from 'ava'
import { commandLines, traces } from './fixtures/caisson-run.ts'

const ROOT = new URL('../..', import.meta.url).pathname

const test = anyTest as TestFn<{ home: string }>

test.before((t) => {
  t.context = { home: mkdtempSync(join(tmpdir(), 'caisson-qs-')) }
  mkdirSync(temporary(t.context.home))
})

test.after.always((t) => {
  rmSync(t.context.home, { recursive: true, force: true })
})

/** What of the quickstart is killed: the program itself, what npm started, or the whole process group. */
type Victim = 'the quickstart' | 'its bootstrap' | 'all of it'

/** Stages, by what is printed when they are reached. */
const KILLS: readonly (readonly [victim: Victim, stage: string, shown: RegExp])[] = [
  ['the quickstart', 'when it has taken its directory', /State of this run/],
  ['all of it', 'when its servers are up', /registry {3}https/],
  ['all of it', 'while it pushes', /\n\[2\]/],
  ['its bootstrap', 'when its image is signed', /\n\[3\]/],
  ['the quickstart', 'when the VM is about to start', /\n\[4\]/],
  ['its bootstrap', 'while the firmware runs', /ms {2}firmware/],
  ['all of it', 'while the guest attests', /ms {2}attesting/],
  ['the quickstart', 'while the guest pulls', /ms {2}pulling: signature/],
  ['all of it', 'when the container runs', /\n\[5\]/],
  ['its bootstrap', 'while the container is used', /\n\[6\]/],
  ['the quickstart', 'while the container is stopped', /logs {7}/],
  ['the quickstart', 'while it tidies up', /\nSummary/],
]

for (const [victim, stage, shown] of KILLS) {
  test.serial(`a quickstart runs to its summary after ${victim} was killed ${stage}`, async (t) => {
    t.timeout(2_400_000)
    const { home } = t.context
    const first = start(t)
    await first.shows(shown)
    kill(first.child, victim)
    await first.ended

    const again = start(t)
    t.is(await again.ended, 0, again.output())
    t.regex(again.output(), /\nSummary\n[\s\S]*exit code 0\n[\s\S]*\nKept: /)
    t.deepEqual([...traces(home), ...traces(`${home}/caisson/quickstart/host`)], [])
    // Of this quickstart alone: others may mount and unmount meanwhile.
    t.false(readFileSync('/proc/mounts', 'utf8').includes(home))
    t.deepEqual(readdirSync(join(home, 'caisson')), ['quickstart'])
    const left = readdirSync(temporary(home)).filter((name) => /swtpm|qemu/.test(name))
    t.deepEqual(left, [])
  })
}

function temporary(home: string): string {
  return join(home, 'tmp')
}

interface Quickstart {
  readonly child: ChildProcess
  readonly ended: Promise<number | null>
  output(): string
  shows(pattern: RegExp): Promise<void>
}

/** As npm starts it, in a process group of its own. */
function start(t: ExecutionContext<{ home: string }>): Quickstart {
  const child = spawn(process.execPath, ['tools/bootstrap.mjs', 'quickstart'], {
    cwd: ROOT,
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, XDG_STATE_HOME: t.context.home, TMPDIR: temporary(t.context.home) },
  })
  t.teardown(() => kill(child, 'all of it'))
  let text = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk
    })
  }
  // Not "close": what outlives a kill holds the pipes open.
  const ended = once(child, 'exit').then(([code]: (number | null)[]) => code ?? null)
  let over = false
  void ended.then(() => {
    over = true
  })
  const shows = async (pattern: RegExp): Promise<void> => {
    while (!pattern.test(text)) {
      if (over) throw new Error(`the quickstart ended before ${pattern}:\n${text}`)
      await Promise.race([once(child.stdout, 'data'), ended])
    }
  }
  return { child, ended, output: () => text, shows }
}

function kill(bootstrap: ChildProcess, victim: Victim): void {
  const pid = bootstrap.pid ?? 0
  try {
    if (victim === 'all of it') process.kill(-pid, 'SIGKILL')
    else if (victim === 'its bootstrap') process.kill(pid, 'SIGKILL')
    else process.kill(quickstartOf(pid), 'SIGKILL')
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'ESRCH')) throw error
  }
}

/** The program that the bootstrap started. */
function quickstartOf(parent: number): number {
  const isChild = (pid: number): boolean => {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]) === parent
  }
  const found = commandLines().find(([pid, args]) => args.includes('tools/quickstart/main.ts') && isChild(pid))
  if (found === undefined) throw new Error('no quickstart runs')
  return found[0]
}
