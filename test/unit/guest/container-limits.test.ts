import test from 'ava'
import { changeLimits, freeze, weightOf } from '#guest/agent/container-limits'
import type { Files } from '#guest/platform/platform'

function recorder(): { files: Files; written: string[] } {
  const written: string[] = []
  const control = async (path: string, text: string) => void written.push(`${path} ${text}`)
  return { files: { control } as Files, written }
}

const NONE = { memoryBytes: 0, cpuQuotaUs: 0, cpuPeriodUs: 0, cpuShares: 0, pids: 0 }

test('limits that are named are written to the container’s control group, and the others stay', async (t) => {
  const { files, written } = recorder()
  await changeLimits(files, '/caisson/c1', { ...NONE, memoryBytes: 4096, cpuQuotaUs: 50_000, pids: 7 })
  t.deepEqual(written, [
    '/sys/fs/cgroup/caisson/c1/memory.max 4096',
    '/sys/fs/cgroup/caisson/c1/cpu.max 50000 100000',
    '/sys/fs/cgroup/caisson/c1/pids.max 7',
  ])
})

test('a standstill is written to the control group, and so is its end', async (t) => {
  const { files, written } = recorder()
  await freeze(files, '/caisson/c1', true)
  await freeze(files, '/caisson/c1', false)
  t.deepEqual(written, ['/sys/fs/cgroup/caisson/c1/cgroup.freeze 1', '/sys/fs/cgroup/caisson/c1/cgroup.freeze 0'])
})

test('shares become weights from 1 to 10000', (t) => {
  t.is(weightOf(2), 1)
  t.is(weightOf(1024), 39)
  t.is(weightOf(262_144), 10_000)
  t.is(weightOf(1e9), 10_000)
  t.is(weightOf(0), 1)
})
