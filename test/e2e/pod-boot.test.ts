/** A pod with the real guest, up to the agent's first answer, and back to nothing. */
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { buildGuest } from '#guest/build/build'
import { connectPod, listPods, stopPod } from '#host-shim/pod/control'
import { type Pod, startPod } from '#host-shim/pod/pod'
import type { PodPlan } from '#host-shim/pod/pod-plan'
import { CAISSON_POD } from '#native/host/index'
import { Stage } from '#protocol/gen/agent_pb'
import { chooseAccelerator } from '#vmm/qemu/accelerator'
import { createTpmCa } from '#vmm/swtpm'
import type { Platform } from '#vmm/types'

const INITDATA = new TextEncoder().encode('version = "0.1.0"\nalgorithm = "sha256"\n\n[data]\n')

async function stateRoot(t: ExecutionContext): Promise<string> {
  const root = await mkdtemp(join(tmpdir(), 'e2e-'))
  t.teardown(async () => {
    for (const { id } of await listPods(root)) await stopPod(root, id, { graceMs: 0 })
    await rm(root, { recursive: true, force: true })
  })
  return root
}

async function podPlan(root: string, platform: Platform): Promise<PodPlan> {
  const guest = await buildGuest()
  const { accelerator } = await chooseAccelerator('auto')
  return {
    id: platform,
    platform,
    accelerator,
    guest: {
      kernel: guest.kernelPath,
      root: guest.rootPath,
      commandLine: guest.manifest.cmdline[platform],
      firmware: '/usr/share/ovmf/OVMF.fd',
    },
    vcpus: 2,
    memoryMib: 512,
    scratchMib: 64,
    initdata: INITDATA,
    network: 'user',
    ...(platform === 'tpm' ? { tpmCa: await createTpmCa(join(root, 'ca')) } : {}),
  }
}

async function start(t: ExecutionContext, root: string, plan: PodPlan): Promise<Pod> {
  const pod = await startPod(plan, { stateRoot: root, podProgram: CAISSON_POD })
  t.teardown(() => pod.stop({ graceMs: 0 }))
  return pod
}

test.serial('on platform none the agent answers, and stopping from another process leaves nothing', async (t) => {
  const root = await stateRoot(t)
  const pod = await start(t, root, await podPlan(root, 'none'))
  t.is((await pod.agent.getStatus()).stage, Stage.READY)
  t.deepEqual(
    pod.stages.map(({ stage }) => stage),
    ['disks', 'vmm', 'kernel', 'init', 'agent'],
  )
  {
    using other = await connectPod(root, 'none')
    t.is((await other.agent.getStatus()).stage, Stage.READY)
  }
  const stopping = stopPod(root, 'none')
  t.is((await pod.exited).code, 0)
  t.is(pod.vm.shutdownReason, 'guest-shutdown')
  await pod.stop()
  await stopping
  t.deepEqual(await readdir(join(root, 'pods')), [])
})

test.serial('on platform tpm initdata is measured before the agent starts', async (t) => {
  const root = await stateRoot(t)
  const pod = await start(t, root, await podPlan(root, 'tpm'))
  t.is((await pod.agent.getStatus()).stage, Stage.READY)
  const { codes } = pod.vm.console
  t.true(codes.indexOf('initdata-measured') >= 0)
  t.true(codes.indexOf('initdata-measured') < codes.indexOf('agent-start'))
  t.is((await pod.stop()).code, 0)
  t.deepEqual(await readdir(join(root, 'pods')), [])
})
