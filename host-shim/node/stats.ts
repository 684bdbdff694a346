/** A container's counters, as the guest reports them, in the form of the host's control groups: what containerd expects. */
import { existsSync } from 'node:fs'
import type { Any } from '@bufbuild/protobuf/wkt'
import type { GetStatsResponse } from '#protocol/gen/agent_pb'
import { MetricsSchema as MetricsV1Schema } from '../containerd/gen/metrics-v1_pb.ts'
import { MetricsSchema as MetricsV2Schema } from '../containerd/gen/metrics-v2_pb.ts'
import { packAny } from './any.ts'

export type CgroupVersion = 1 | 2

export type Counters = Pick<
  GetStatsResponse,
  'cpuUsageUs' | 'cpuUserUs' | 'cpuSystemUs' | 'memoryBytes' | 'memoryLimitBytes' | 'pids'
>

/** The version that this machine's containerd counts in. */
export function hostCgroupVersion(): CgroupVersion {
  return existsSync('/sys/fs/cgroup/cgroup.controllers') ? 2 : 1
}

export function encodeStats(counters: Counters, version: CgroupVersion): Any {
  const { cpuUsageUs, cpuUserUs, cpuSystemUs, memoryBytes, memoryLimitBytes, pids } = counters
  if (version === 2) {
    return packAny(MetricsV2Schema, {
      pids: { current: pids },
      cpu: { usageUsec: cpuUsageUs, userUsec: cpuUserUs, systemUsec: cpuSystemUs },
      memory: { usage: memoryBytes, usageLimit: memoryLimitBytes },
    })
  }
  return packAny(MetricsV1Schema, {
    pids: { current: pids },
    cpu: { usage: { total: cpuUsageUs * 1000n, kernel: cpuSystemUs * 1000n, user: cpuUserUs * 1000n } },
    memory: { usage: { usage: memoryBytes, limit: memoryLimitBytes } },
  })
}
