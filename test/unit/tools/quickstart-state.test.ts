/** The state directory of a quickstart, when another run has it or was killed in it. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { identifyProcess } from '#host-shim/pod/process-identity'
import { takeStateDirectory } from '../../../tools/quickstart/state.ts'

const home = mkdtempSync(join(tmpdir(), 'caisson-state-'))
const state = join(home, 'caisson/quickstart')

test.before(() => {
  process.env.XDG_STATE_HOME = home
})

test.after.always(() => {
  rmSync(home, { recursive: true, force: true })
})

test.serial('a quickstart waits for another one that runs, and then has an empty directory of its own', async (t) => {
  const other = spawn('sleep', ['600'])
  await once(other, 'spawn')
  mkdirSync(state, { recursive: true })
  writeFileSync(join(state, 'owner.json'), JSON.stringify(await identifyProcess(other.pid ?? 0)))
  writeFileSync(join(state, 'left-over'), '')
  const waited: number[] = []
  t.is(
    await takeStateDirectory((pid) => {
      waited.push(pid)
      t.true(existsSync(join(state, 'left-over')), 'nothing is touched while the other one runs')
      other.kill()
    }),
    state,
  )
  t.deepEqual(waited, [other.pid ?? 0])
  t.false(existsSync(join(state, 'left-over')))
  t.deepEqual(JSON.parse(readFileSync(join(state, 'owner.json'), 'utf8')), await identifyProcess(process.pid))
})

test.serial('what a killed quickstart was making is ended before the directory is emptied', async (t) => {
  rmSync(join(state, 'owner.json'), { force: true })
  mkdirSync(join(state, 'bin'), { recursive: true })
  // By its name and the path among its words it is a TPM in the making.
  const program = join(state, 'bin/swtpm_setup')
  copyFileSync('/bin/sh', program)
  const left = spawn(program, ['-c', 'read line', join(state, 'tenant/tpm-ca/sample')])
  await once(left, 'spawn')
  const ended = once(left, 'exit')
  await takeStateDirectory(() => t.fail('nobody has it'))
  await ended
  t.false(existsSync(program))
})
