/** Boots a guest whose agent is not ours and watches its console; the same disks, devices and processes as a pod. */
import { createScratchDisk, writeInitdataDisk } from '#host-shim/pod/disks'
import type { PodPlan } from '#host-shim/pod/pod-plan'
import { startPodProcess } from '#host-shim/pod/pod-process'
import { createPodState, podPaths, removePod } from '#host-shim/pod/state-dir'
import { CAISSON_POD } from '#native/host/index'
import { qemu } from '#vmm/qemu/driver'

/** Milliseconds from the kernel's start to the console code `agent-ready`. Platform `none` only. */
export async function watchConsole(plan: PodPlan, stateRoot: string): Promise<number> {
  const paths = podPaths(stateRoot, plan.id)
  await createPodState(paths, { id: plan.id, platform: plan.platform, labels: {} })
  try {
    await writeInitdataDisk(paths.initdata, plan.initdata)
    await createScratchDisk(paths.scratch, plan.scratchMib)
    await using vm = await qemu.launch(
      {
        id: plan.id,
        platform: plan.platform,
        accelerator: plan.accelerator,
        kernel: plan.guest.kernel,
        commandLine: plan.guest.commandLine,
        disks: [
          { serial: 'root', path: plan.guest.root, readOnly: true },
          { serial: 'initdata', path: paths.initdata, readOnly: true },
          { serial: 'scratch', path: paths.scratch, readOnly: false },
        ],
        vcpus: plan.vcpus,
        memoryMib: plan.memoryMib,
        network: plan.network,
        vsockSocket: paths.vhost,
        runDir: paths.directory,
      },
      {
        consoleFile: paths.consoleLog,
        launch: (argv) =>
          startPodProcess({
            program: CAISSON_POD,
            stateDir: paths.directory,
            vsock: paths.vsock,
            vhost: paths.vhost,
            log: paths.vmmLog,
            argv,
          }),
      },
    )
    const started = performance.now()
    await new Promise<void>((resolve, reject) => {
      const look = (): void => {
        if (vm.console.codes.includes('agent-ready')) resolve()
      }
      vm.console.onProgress(look)
      look()
      void vm.process.exited.then(() =>
        reject(new Error(`the VM ended; console codes: ${vm.console.codes.join(', ')}`)),
      )
    })
    return performance.now() - started
  } finally {
    await removePod(paths)
  }
}
