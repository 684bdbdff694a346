/** How a VM and its `caisson-pod` end, and what a reset means, with QEMU. */
import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import test from 'ava'
import { ECHO, startVm } from './machine.ts'
import { isRunning, until } from './pod.ts'
import { digest, echoDigest, readAll } from './stream.ts'

test.serial('a reset ends streams, and the guest is reachable again', async (t) => {
  const vm = await startVm(t, { reboots: true })
  const idle = await vm.dial(ECHO)
  await vm.qmp('system_reset')
  t.is((await readAll(idle)).length, 0)
  await vm.pod.event('guest-reset')
  t.false((await vm.pod.event('guest-connected', 2)).resumed)
  await vm.ready()
  t.is(await echoDigest(await vm.dial(ECHO), Buffer.from('again')), digest(Buffer.from('again')))
})

test.serial('a guest that powers off ends the process with code 0 and leaves only the log', async (t) => {
  const vm = await startVm(t)
  const idle = await vm.dial(ECHO)
  await t.throwsAsync(vm.control('off').then((answer) => Promise.reject(new Error(answer))))
  t.deepEqual(await vm.pod.event('vm-exit'), { event: 'vm-exit', code: 0 })
  t.deepEqual(await vm.pod.exit, { code: 0, signal: null })
  t.is((await readAll(idle)).length, 0)
  t.deepEqual(readdirSync(vm.pod.dir), ['vmm.log'])
})

test.serial('closing standard input ends the VM', async (t) => {
  const { pod } = await startVm(t)
  const { pid } = await pod.event('vm-started')
  pod.process.stdin.end()
  await pod.event('vm-exit')
  await pod.exit
  t.false(isRunning(pid))
  t.deepEqual(readdirSync(pod.dir), ['vmm.log'])
})

test.serial('the death of the process kills QEMU', async (t) => {
  const { pod } = await startVm(t)
  const { pid } = await pod.event('vm-started')
  pod.process.kill('SIGKILL')
  await once(pod.process, 'exit')
  await until(() => !isRunning(pid), 'QEMU ends')
  t.pass()
})
