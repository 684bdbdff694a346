/** What a pod takes on its node beyond its containers, for the scheduler and the pod's cgroup (RuntimeClass `overhead`). */
import type { Accelerator } from '#vmm/types'
import { GUEST_OVERHEAD_MIB } from '../pod/pod-plan.ts'
import { RUNTIME_HANDLER } from './node-layout.ts'

/**
 * Memory of the pod's processes on the host without the guest's own: QEMU, the software TPM, `caisson-pod`, the relay.
 * MiB. Emulation keeps translated code: 310 were seen. With KVM nothing could be measured where this was written.
 */
const HOST_OVERHEAD_MIB: Readonly<Record<Accelerator, number>> = { kvm: 96, tcg: 384 }

/** Nodes that carry it are meant for Caisson: the RuntimeClass sends pods there, and the installer goes there. */
export const NODE_LABEL = 'caisson.dev/node'

/**
 * The VM is as large as the containers' limits and the guest's overhead (`vmSize`); the host's part comes on top. CPUs:
 * none, since the VM has exactly those of the limits.
 */
export function podOverhead(accelerator: Accelerator): { readonly memoryMib: number } {
  return { memoryMib: GUEST_OVERHEAD_MIB + HOST_OVERHEAD_MIB[accelerator] }
}

/** A manifest for `kubectl apply -f`. */
export function runtimeClassYaml(accelerator: Accelerator): string {
  return `# Pods with "runtimeClassName: ${RUNTIME_HANDLER}" run in a confidential VM each. The overhead is the guest's own memory
# (part of the VM's size) and that of the VM's processes on the node; the VM has no CPUs beyond the containers' limits.
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata:
  name: ${RUNTIME_HANDLER}
handler: ${RUNTIME_HANDLER}
overhead:
  podFixed:
    memory: ${podOverhead(accelerator).memoryMib}Mi
scheduling:
  nodeSelector:
    ${NODE_LABEL}: "true"
`
}
