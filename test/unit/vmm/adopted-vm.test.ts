import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import test, { type ExecutionContext } from 'ava'
import { AdoptedVm } from '#vmm/qemu/adopted-vm'
import { controlSockets } from '#vmm/qemu/command-line'

/** The later control connection of a QEMU whose guest is in this state; `commands` are those that came. */
async function qemuThat(t: ExecutionContext, status: string): Promise<{ runDir: string; commands: string[] }> {
  const runDir = mkdtempSync(join(tmpdir(), 'adopt-'))
  const commands: string[] = []
  const server = createServer((socket) => {
    t.teardown(() => socket.destroy())
    socket.write('{"QMP": {"version": {}, "capabilities": []}}\r\n')
    createInterface({ input: socket }).on('line', (line) => {
      const { execute, id } = JSON.parse(line) as { execute: string; id: number }
      commands.push(execute)
      if (execute === 'cont') status = 'running'
      socket.write(`${JSON.stringify({ return: execute === 'query-status' ? { status } : {}, id })}\r\n`)
    })
  })
  t.teardown(() => {
    server.close()
    rmSync(runDir, { recursive: true, force: true })
  })
  await new Promise<void>((resolve) => server.listen(controlSockets(runDir).later, resolve))
  return { runDir, commands }
}

test('a VM that waited for room when its daemon went is let go on by the next one', async (t) => {
  const { runDir, commands } = await qemuThat(t, 'io-error')
  let told = 0
  using vm = await AdoptedVm.connect(runDir, { onDiskFull: () => told++, retryMs: 1 })
  t.is(told, 1)
  while (vm.waitsForRoom || !commands.includes('cont')) await new Promise((resolve) => setTimeout(resolve, 1))
  t.deepEqual(commands, ['qmp_capabilities', 'query-status', 'cont'])
})

test('a VM that somebody paused is left as it is', async (t) => {
  const { runDir, commands } = await qemuThat(t, 'paused')
  using vm = await AdoptedVm.connect(runDir, { onDiskFull: () => t.fail(), retryMs: 1 })
  t.false(vm.waitsForRoom)
  t.deepEqual(commands, ['qmp_capabilities', 'query-status'])
})

test('a VM whose QEMU is gone is told as such', async (t) => {
  const runDir = mkdtempSync(join(tmpdir(), 'adopt-'))
  t.teardown(() => rmSync(runDir, { recursive: true, force: true }))
  await t.throwsAsync(AdoptedVm.connect(runDir, {}), { code: 'ERR_QMP_CLOSED' })
})
