/** The state directory of a quickstart: made anew for each run, kept afterwards, never shared by two runs. */
import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { homedir } from 'node:os'
import {
  endProcess,
  findProcesses,
  identifyProcess,
  isSameProcess,
  type ProcessIdentity,
} from '#host-shim/pod/process-identity'
import { UnavailableError } from '#protocol/errors'

const LEFTOVER_GRACE_MS = 10_000

/** Empties the directory and takes it for this process. Throws ERR_QUICKSTART_RUNNING while another run has it. */
export async function takeStateDirectory(): Promise<string> {
  const home = process.env.XDG_STATE_HOME ?? `${homedir()}/.local/state`
  const state = `${home}/caisson/quickstart`
  const owner = readOwner(`${state}/owner.json`)
  if (owner !== undefined && (await isSameProcess(owner))) {
    throw new UnavailableError('ERR_QUICKSTART_RUNNING', `another quickstart (pid ${owner.pid}) uses ${state}`, {
      hint: 'Wait for it, or choose another directory with XDG_STATE_HOME.',
    })
  }
  // A run that was killed leaves its servers behind; all of them were given paths in this directory.
  for (const leftover of await findProcesses(state, isQuickstartChild)) await endProcess(leftover, LEFTOVER_GRACE_MS)
  rmSync(state, { recursive: true, force: true })
  mkdirSync(`${state}/tenant/registry`, { recursive: true, mode: 0o700 })
  const me = await identifyProcess(process.pid)
  writeFileSync(`${state}/owner.json.new`, JSON.stringify(me))
  renameSync(`${state}/owner.json.new`, `${state}/owner.json`)
  return state
}

function isQuickstartChild(commandLine: readonly string[]): boolean {
  const [program = ''] = commandLine
  return program.endsWith('/docker-registry') || commandLine.some((word) => word.endsWith('/cli/main.ts'))
}

function readOwner(path: string): ProcessIdentity | undefined {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as ProcessIdentity
  } catch {
    return undefined // no run before, or one that ended before it wrote its name
  }
}
