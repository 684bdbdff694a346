import { anyUnpack } from '@bufbuild/protobuf/wkt'
import test from 'ava'
import { MetricsSchema as MetricsV1Schema } from '#host-shim/containerd/gen/metrics-v1_pb'
import { MetricsSchema as MetricsV2Schema } from '#host-shim/containerd/gen/metrics-v2_pb'
import { encodeStats } from '#host-shim/node/stats'

const COUNTERS = {
  cpuUsageUs: 30n,
  cpuUserUs: 10n,
  cpuSystemUs: 20n,
  memoryBytes: 4096n,
  memoryLimitBytes: 8192n,
  pids: 3n,
}

test('statistics are those of the node’s control groups, with the time of users and of the kernel the right way round', (t) => {
  const second = anyUnpack(encodeStats(COUNTERS, 2), MetricsV2Schema)
  t.like(second?.cpu, { usageUsec: 30n, userUsec: 10n, systemUsec: 20n })
  t.like(second?.memory, { usage: 4096n, usageLimit: 8192n })
  t.is(second?.pids?.current, 3n)
  // Nanoseconds (cgroup v1, cpuacct.usage).
  const first = anyUnpack(encodeStats(COUNTERS, 1), MetricsV1Schema)
  t.like(first?.cpu?.usage, { total: 30_000n, user: 10_000n, kernel: 20_000n })
  t.like(first?.memory?.usage, { usage: 4096n, limit: 8192n })
  t.is(first?.pids?.current, 3n)
})
