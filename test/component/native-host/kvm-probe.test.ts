import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { probeKvm } from '#native/host/index'
import { buildNative } from '../../../native/build.mjs'

await buildNative({ only: ['caisson-kvm-probe'] })

const cpuVirtualises = /\b(vmx|svm)\b/.test(readFileSync('/proc/cpuinfo', 'utf8'))

test('the probe gives a verdict with a reason, and never trusts /dev/kvm alone', async (t) => {
  const { usable, reason } = await probeKvm()
  t.true(reason.length > 0)
  if (!existsSync('/dev/kvm') || !cpuVirtualises) t.false(usable, reason)
})

test('a probe that hangs is a verdict, too', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'caisson-kvm-'))
  t.teardown(() => rmSync(dir, { recursive: true, force: true }))
  const program = join(dir, 'hangs')
  writeFileSync(program, '#!/bin/sh\nexec sleep 60\n')
  chmodSync(program, 0o700)

  t.deepEqual(await probeKvm({ program, timeoutMs: 200 }), {
    usable: false,
    reason: 'a guest of five instructions did not end within 200 ms',
  })
})

test('a probe program that is missing is an error that says how to build it', async (t) => {
  const error = await t.throwsAsync(probeKvm({ program: '/nonexistent/probe' }), { code: 'ERR_KVM_PROBE' })
  t.regex(String((error as { hint?: string }).hint), /native\/build\.mjs/)
})
