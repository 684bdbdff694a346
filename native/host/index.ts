/** The only door from TypeScript to the native parts of the host side. */
export { judgeKvm, type KvmFindings, type KvmProbe, parseKvmFindings, probeKvm } from './kvm.ts'
export { type PodEvent, parsePodEvent } from './pod-events.ts'
export { CAISSON_KVM_PROBE, CAISSON_POD, CAISSON_SHIM } from './programs.ts'
