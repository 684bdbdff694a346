/** The same pull inside a guest, in absolute form: no other engine is there to stand beside it. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { buildGuest } from '#guest/build/build'
import { startPod } from '#host-shim/pod/pod'
import { CAISSON_POD } from '#native/host/index'
import { EventKind } from '#protocol/gen/agent_pb'
import { encodeInitdata } from '#protocol/initdata'
import { chooseAccelerator } from '#vmm/qemu/accelerator'
import { USER_NETWORK } from '#vmm/qemu/command-line'
import type { BenchImage } from './images.ts'
import { type BenchRegistry, GUEST_NAME, push } from './registry.ts'

export interface GuestPullFigures {
  readonly shape: string
  readonly format: string
  readonly accelerator: string
  /** From the manifest to the last layer, the kernel's clock of the guest. */
  readonly wallS: number
  readonly mbPerS: number
  /** Of the agent, when the pull is done. */
  readonly anonymousMib: number
  readonly residentMib: number
}

export async function benchGuestPull(registry: BenchRegistry, image: BenchImage): Promise<GuestPullFigures> {
  const folder = mkdtempSync(join(tmpdir(), 'caisson-bench-guest-'))
  try {
    const name = `bench/${image.shape}`
    push(registry, image.layout, `${name}:${image.format}`)
    const guest = await buildGuest()
    const { accelerator } = await chooseAccelerator('auto')
    await using pod = await startPod(
      {
        id: 'bench-pull',
        platform: 'none',
        accelerator,
        guest: { kernel: guest.kernelPath, root: guest.rootPath, commandLine: guest.manifest.cmdline.none },
        vcpus: 2,
        memoryMib: 1024,
        scratchMib: 2048,
        initdata: initdataFor(registry, `${GUEST_NAME}:${registry.host.split(':')[1]}/${name}@${digestOf(image)}`),
        network: 'user',
      },
      { stateRoot: folder, podProgram: CAISSON_POD },
    )
    await pod.agent.startSandbox({
      hostname: 'bench',
      interfaces: [{ ...USER_NETWORK, addresses: [...USER_NETWORK.addresses], gateways: [...USER_NETWORK.gateways] }],
      nameservers: [...USER_NETWORK.nameservers],
      hosts: [{ name: GUEST_NAME, address: '10.0.2.2' }],
    })
    const wallS = await pulled(pod.agent.watchEvents())
    const { agentAnonymousBytes, agentResidentBytes } = await pod.agent.getStatus()
    const { shape, format, tarBytes } = image
    return {
      shape,
      format,
      accelerator,
      wallS,
      mbPerS: tarBytes / 1e6 / wallS,
      anonymousMib: Number(agentAnonymousBytes) / 2 ** 20,
      residentMib: Number(agentResidentBytes) / 2 ** 20,
    }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

async function pulled(events: AsyncIterable<{ readonly kind: EventKind; readonly atMs: bigint }>): Promise<number> {
  let fromMs = 0n
  for await (const { kind, atMs } of events) {
    if (kind === EventKind.PULL_MANIFEST) fromMs = atMs
    if (kind === EventKind.PULL_DONE) return Number(atMs - fromMs) / 1000
  }
  throw new Error('the guest ended before its pull did')
}

function digestOf({ layout }: BenchImage): string {
  const index = JSON.parse(readFileSync(join(layout, 'index.json'), 'utf8')) as { manifests: { digest: string }[] }
  return index.manifests[0]?.digest ?? ''
}

function initdataFor(registry: BenchRegistry, reference: string): Uint8Array {
  return encodeInitdata({
    verifier: undefined,
    registryCaPem: [readFileSync(registry.caFile, 'utf8')],
    imagePolicyResource: undefined,
    registryCredentialsResource: undefined,
    policyYaml: [
      'apiVersion: caisson/v1',
      'kind: WorkloadPolicy',
      'imagePolicy: { default: [ { type: insecureAcceptAnything } ] }',
      'containers:',
      `  - { name: bench, image: "${reference}" }`,
    ].join('\n'),
    tenantKeyJwk: undefined,
  })
}
