/** What `caisson node check` says about one need of a node. */

export interface Finding {
  /** Stable: callers switch on it. */
  readonly code: FindingCode
  /** `warning`: pods run, but not as one would wish. `missing`: they do not run. */
  readonly status: 'ok' | 'warning' | 'missing'
  readonly found: string
  readonly needed: string
  /** What mends it; undefined when nothing is to be mended. */
  readonly remedy?: string
}

export type FindingCode =
  | 'containerd-config'
  | 'containerd-cri'
  | 'containerd-version'
  | 'cpu-virtualisation'
  | 'disk-space'
  | 'firmware'
  | 'guest-image'
  | 'installation'
  | 'kernel'
  | 'network-tools'
  | 'node-daemon'
  | 'pod-process'
  | 'qemu'
  | 'snapshotter'
  | 'software-tpm'
  | 'tee'

export function ok(code: FindingCode, needed: string, found: string): Finding {
  return { code, status: 'ok', found, needed }
}

export function lacking(
  code: FindingCode,
  status: 'warning' | 'missing',
  { needed, found, remedy }: { readonly needed: string; readonly found: string; readonly remedy: string },
): Finding {
  return { code, status, found, needed, remedy }
}
