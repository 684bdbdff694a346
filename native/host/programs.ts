/** Where `native/build.mjs` puts the programs of the host side. */
import { fileURLToPath } from 'node:url'

function built(name: string): string {
  return fileURLToPath(new URL(`../build/${name}`, import.meta.url))
}

/** The process that stays with one VM: vsock device and parent of the VMM. `caisson-pod` without arguments explains itself. */
export const CAISSON_POD: string = built('caisson-pod')

/** Runs a tiny guest under KVM; see `probeKvm`. */
export const CAISSON_KVM_PROBE: string = built('caisson-kvm-probe')

/** What containerd starts for every pod; `caisson node install` puts it where containerd looks. */
export const CAISSON_SHIM: string = built('containerd-shim-caisson-v2')
