import test from 'ava'
import { prepareScratch } from '#guest/agent/scratch'
import type { UnavailableError } from '#protocol/errors'
import { FakePlatform } from './fake-platform.ts'

test('a scratch disk is encrypted, formatted and mounted, in this order', async (t) => {
  const platform = new FakePlatform()
  t.is(await prepareScratch(platform), '/run/caisson/scratch')
  const steps = platform.log.filter((step) => /^(?:crypt|run|mount)/.test(step))
  t.deepEqual(steps, ['crypt scratch', 'run /usr/sbin/mke2fs', 'mount ext4 /run/caisson/scratch'])
})

test('a virtual machine without a scratch disk is told so, with what to do', async (t) => {
  const platform = new FakePlatform()
  Object.assign(platform.storage, { findDisk: async () => undefined })
  const error = await t.throwsAsync<UnavailableError>(prepareScratch(platform), { code: 'ERR_SCRATCH_MISSING' })
  t.regex(error?.hint ?? '', /scratch disk/)
})

test('a scratch disk that is too small, or cannot be written, is refused before anything is mounted', async (t) => {
  const platform = new FakePlatform()
  const stderr = new TextEncoder().encode('mke2fs: Device size reported to be zero')
  Object.assign(platform.processes, { run: async () => ({ code: 1, stdout: new Uint8Array(), stderr }) })
  const error = await t.throwsAsync<UnavailableError>(prepareScratch(platform), { code: 'ERR_SCRATCH' })
  t.regex(error?.message ?? '', /Device size reported to be zero/)
  t.regex(error?.hint ?? '', /larger/)
  t.false(platform.log.some((step) => step.startsWith('mount')))
})
