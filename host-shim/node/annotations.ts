/** Annotations of bundles: containerd's CRI plugin writes the first ones, a pod's author the others. */
export const ANNOTATION = {
  containerType: 'io.kubernetes.cri.container-type',
  sandboxId: 'io.kubernetes.cri.sandbox-id',
  podName: 'io.kubernetes.cri.sandbox-name',
  podUid: 'io.kubernetes.cri.sandbox-uid',
  podNamespace: 'io.kubernetes.cri.sandbox-namespace',
  containerName: 'io.kubernetes.cri.container-name',
  imageName: 'io.kubernetes.cri.image-name',
  sandboxMemory: 'io.kubernetes.cri.sandbox-memory',
  sandboxCpuQuota: 'io.kubernetes.cri.sandbox-cpu-quota',
  sandboxCpuPeriod: 'io.kubernetes.cri.sandbox-cpu-period',
  /** TOML, base64. */
  initdata: 'caisson.dev/initdata',
  platform: 'caisson.dev/platform',
} as const

/** What containerd must be told to hand on (`pod_annotations`). */
export const POD_ANNOTATIONS = 'caisson.dev/*'
