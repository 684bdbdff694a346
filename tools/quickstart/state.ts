/** The state directory of a quickstart: made anew for each run, kept afterwards, never shared by two runs. */
import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { setTimeout } from 'node:timers/promises'
import {
  endProcess,
  findPodProcesses,
  findProcesses,
  identifyProcess,
  isSameProcess,
  type ProcessIdentity,
} from '#host-shim/pod/process-identity'
import { UnavailableError } from '#protocol/errors'

const LEFTOVER_GRACE_MS = 10_000
/** A run takes half a minute; one whose npm was killed goes on to its end. */
const OTHER_RUN_MS = 300_000
const OTHER_RUN_POLL_MS = 200

/**
 * Empties the directory and takes it for this process; waits for a run that has it. Throws ERR_QUICKSTART_RUNNING when
 * that takes too long.
 */
export async function takeStateDirectory(onWait: (pid: number) => void): Promise<string> {
  const home = process.env.XDG_STATE_HOME ?? `${homedir()}/.local/state`
  const state = `${home}/caisson/quickstart`
  await otherRunEnded(state, onWait)
  // A run that was killed leaves its servers behind; all of them were given paths in this directory. First those that
  // end others in order, then what they had no time to end.
  for (const find of [() => findProcesses(state, isQuickstartChild), () => findPodProcesses(state)]) {
    const leftovers = await find()
    await Promise.all(leftovers.map((leftover) => endProcess(leftover, LEFTOVER_GRACE_MS)))
  }
  rmSync(state, { recursive: true, force: true })
  mkdirSync(`${state}/tenant/registry`, { recursive: true, mode: 0o700 })
  const me = await identifyProcess(process.pid)
  writeFileSync(`${state}/owner.json.new`, JSON.stringify(me))
  renameSync(`${state}/owner.json.new`, `${state}/owner.json`)
  return state
}

async function otherRunEnded(state: string, onWait: (pid: number) => void): Promise<void> {
  const owner = readOwner(`${state}/owner.json`)
  if (owner === undefined || !(await isSameProcess(owner))) return
  onWait(owner.pid)
  for (const deadline = Date.now() + OTHER_RUN_MS; await isSameProcess(owner); await setTimeout(OTHER_RUN_POLL_MS)) {
    if (Date.now() < deadline) continue
    throw new UnavailableError('ERR_QUICKSTART_RUNNING', `another quickstart (pid ${owner.pid}) uses ${state}`, {
      hint: 'End it, or choose another directory with XDG_STATE_HOME.',
    })
  }
}

function isQuickstartChild(commandLine: readonly string[]): boolean {
  const [program = ''] = commandLine
  return (
    program.endsWith('/docker-registry') || commandLine.some((word) => /\/cli\/(?:main\.ts|caisson\.mjs)$/.test(word))
  )
}

function readOwner(path: string): ProcessIdentity | undefined {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as ProcessIdentity
  } catch {
    return undefined // no run before, or one that ended before it wrote its name
  }
}
