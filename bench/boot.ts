/**
 * Boot stages and agent readiness, beside a guest whose Node does nothing; and memory in the guest and on the host.
 * Rounds are interleaved, so that what else the machine does falls on both alike.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { buildGuest } from '#guest/build/build'
import type { GuestImage } from '#guest/build/guest-image'
import { startPod } from '#host-shim/pod/pod'
import { type PodPlan, vmSize } from '#host-shim/pod/pod-plan'
import { CAISSON_POD } from '#native/host/index'
import { encodeInitdata } from '#protocol/initdata'
import { chooseAccelerator } from '#vmm/qemu/accelerator'
import { createTpmCa, type TpmCa } from '#vmm/swtpm'
import { watchConsole } from './console-boot.ts'
import { memoryOf, type ProcessMemory } from './process-memory.ts'
import { median } from './statistics.ts'

const POLICY = `apiVersion: caisson/v1
kind: WorkloadPolicy
containers:
  - name: idle
    image: registry.test:5000/idle@sha256:${'00'.repeat(32)}
`

export interface BootFigures {
  readonly rounds: number
  /** Platform → stage → median milliseconds. */
  readonly stages: Readonly<Record<string, Readonly<Record<string, number>>>>
  /** Kernel start to the agent's first answer, and to the first line of a Node that does nothing. Milliseconds. */
  readonly agentReadyMs: number
  readonly bareNodeMs: number
  readonly ratio: number
  readonly agentAnonymousMib: number
  readonly agentResidentMib: number
  readonly host: readonly ProcessMemory[]
  readonly kernelBytes: number
  readonly rootBytes: number
}

export async function benchBoot(rounds: number, say: (line: string) => void): Promise<BootFigures> {
  const directory = mkdtempSync(join(tmpdir(), 'caisson-bench-'))
  try {
    const guest = await buildGuest({})
    const trivial = await buildGuest({ agent: new URL('trivial-agent.ts', import.meta.url).pathname })
    const { accelerator } = await chooseAccelerator('auto')
    const tpmCa = await createTpmCa(join(directory, 'tpm-ca'))
    const plan = (id: string, platform: 'tpm' | 'none', image: GuestImage): PodPlan =>
      planOf({ id, platform, image, tpmCa, accelerator })
    const ready: number[] = []
    const bare: number[] = []
    const stages = { none: new Map<string, number[]>(), tpm: new Map<string, number[]>() }
    let memory = { anonymous: 0, resident: 0, host: [] as readonly ProcessMemory[] }
    for (let round = 0; round < rounds; round++) {
      for (const platform of ['none', 'tpm'] as const) {
        await using pod = await startPod(plan(`bench-${platform}`, platform, guest), {
          stateRoot: directory,
          podProgram: CAISSON_POD,
        })
        for (const { stage, durationMs } of pod.stages) {
          stages[platform].set(stage, [...(stages[platform].get(stage) ?? []), durationMs])
        }
        if (platform === 'none') ready.push(sinceKernel(pod.stages))
        const status = await pod.agent.getStatus()
        memory = {
          anonymous: Number(status.agentAnonymousBytes) / 2 ** 20,
          resident: Number(status.agentResidentBytes) / 2 ** 20,
          host: memoryOf(pod.paths.directory),
        }
      }
      bare.push(await watchConsole(plan('bench-bare', 'none', trivial), directory))
      say(
        `round ${round + 1} of ${rounds}: agent ${ready.at(-1)?.toFixed(0)} ms, bare Node ${bare.at(-1)?.toFixed(0)} ms`,
      )
    }
    return {
      rounds,
      stages: Object.fromEntries(
        Object.entries(stages).map(([platform, times]) => [
          platform,
          Object.fromEntries([...times].map(([stage, values]) => [stage, median(values)])),
        ]),
      ),
      agentReadyMs: median(ready),
      bareNodeMs: median(bare),
      ratio: median(ready) / median(bare),
      agentAnonymousMib: memory.anonymous,
      agentResidentMib: memory.resident,
      host: memory.host,
      kernelBytes: guest.manifest.kernel.size,
      rootBytes: guest.manifest.root.size,
    }
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}

function planOf(options: {
  id: string
  platform: 'tpm' | 'none'
  image: GuestImage
  tpmCa: TpmCa
  accelerator: PodPlan['accelerator']
}): PodPlan {
  const { id, platform, image, tpmCa, accelerator } = options
  return {
    id,
    platform,
    accelerator,
    guest: {
      kernel: image.kernelPath,
      root: image.rootPath,
      commandLine: image.manifest.cmdline[platform],
      ...(platform === 'tpm' ? { firmware: '/usr/share/ovmf/OVMF.fd' } : {}),
    },
    ...vmSize([{ cpus: 2 }]),
    scratchMib: 256,
    initdata: encodeInitdata({
      verifier: undefined,
      registryCaPem: [],
      imagePolicyResource: undefined,
      registryCredentialsResource: undefined,
      policyYaml: POLICY,
      tenantKeyJwk: undefined,
    }),
    network: 'user',
    ...(platform === 'tpm' ? { tpmCa } : {}),
  }
}

/** Kernel, init and agent: what lies between the kernel's start and the agent's first answer. */
function sinceKernel(stages: readonly { stage: string; durationMs: number }[]): number {
  const counted = stages.filter(({ stage }) => stage === 'kernel' || stage === 'init' || stage === 'agent')
  return counted.reduce((sum, { durationMs }) => sum + durationMs, 0)
}
