/**
 * A QEMU that starts and does not answer on its control connection, at each step of the first conversation. Nothing tells it
 * from a slow one but time, so these tests last as long as the limit, all at once.
 */
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { listPods } from '#host-shim/pod/control'
import { startPod } from '#host-shim/pod/pod'
import { findPodProcesses } from '#host-shim/pod/process-identity'
import { CAISSON_POD } from '#native/host/index'

const GREETING = { QMP: { version: { qemu: { major: 7, minor: 2, micro: 0 } }, capabilities: [] } }
const STEPS = [
  { what: 'never connects', script: '', code: 'ERR_VMM_FAILED' },
  { what: 'connects and never greets', script: 'connect()', code: /^ERR_(?:VMM_FAILED|QMP_TIMEOUT)$/ },
  {
    what: 'greets and answers no command',
    script: `connect().write(${JSON.stringify(`${JSON.stringify(GREETING)}\n`)})`,
    code: /^ERR_(?:VMM_FAILED|QMP_TIMEOUT)$/,
  },
  {
    what: 'talks of other things for ever',
    script: `const socket = connect()
      setInterval(() => socket.write('{"event": "RTC_CHANGE", "data": {}, "timestamp": {}}\\n'), 50)`,
    code: /^ERR_(?:VMM_FAILED|QMP_TIMEOUT)$/,
  },
] as const

for (const { what, script, code } of STEPS) {
  test(`a QEMU that ${what} is given up by name, and nothing of it is left`, async (t) => {
    t.timeout(600_000)
    const root = await mkdtemp(join(tmpdir(), 'mon-'))
    t.teardown(() => rm(root, { recursive: true, force: true }))
    const program = join(root, 'qemu')
    await writeFile(program, `#!${process.execPath}\n${PREPARED}\n${script}\nsetInterval(() => undefined, 1000)\n`)
    await chmod(program, 0o700)
    for (const name of ['kernel', 'root.img']) await writeFile(join(root, name), new Uint8Array(512))
    const starting = startPod(
      {
        id: 'p',
        platform: 'none',
        accelerator: 'tcg',
        guest: { kernel: join(root, 'kernel'), root: join(root, 'root.img'), commandLine: 'quiet' },
        vcpus: 1,
        memoryMib: 64,
        scratchMib: 16,
        initdata: new TextEncoder().encode('version = "0.1.0"\n'),
        network: 'user',
      },
      { stateRoot: root, podProgram: CAISSON_POD, qemuProgram: program },
    )
    const error = await t.throwsAsync(starting, { message: /QEMU did not (?:connect|answer)/ })
    t.regex(error !== undefined && 'code' in error ? String(error.code) : '', new RegExp(code))
    t.truthy(error !== undefined && 'hint' in error && error.hint)
    t.deepEqual(await listPods(root), [])
    t.deepEqual(await findPodProcesses(root), [])
  })
}

/** Finds the control socket among the words of the command line, and ignores every polite request to end. */
const PREPARED = `
const words = process.argv.join(' ')
for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP']) process.on(signal, () => undefined)
const connect = () => process.getBuiltinModule('node:net').connect(/[^ =,"]*\\/qmp[.]sock/.exec(words)[0]).on('error', () => undefined)
`
