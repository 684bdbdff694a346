/** How the node's daemon, which serves the snapshotter too, is started: by systemd, or by the shim that misses it. */
import type { Accelerator, Platform } from '#vmm/types'
import type { NodeLayout } from './node-layout.ts'

export type ServiceKind = 'systemd' | 'none'

export interface DaemonOptions {
  /** Of pods that do not say. */
  readonly platform: Platform
  readonly accelerator: 'auto' | Accelerator
  /** Images whose layers only guests fetch; none: no snapshotter is served. */
  readonly guestImages: readonly string[]
}

/** Words that start the daemon. */
export function daemonWords(
  layout: NodeLayout,
  { platform, accelerator, guestImages }: DaemonOptions,
): readonly string[] {
  return [
    layout.launcher,
    ...['node', 'serve'],
    ...['--state', layout.stateRoot],
    ...['--socket', layout.nodeSocket],
    ...['--shim-sockets', layout.shimSockets],
    ...['--tpm-ca', layout.tpmCa],
    ...['--platform', platform],
    ...['--accel', accelerator],
    ...['--containerd', layout.containerdSocket],
    ...(guestImages.length === 0 ? [] : ['--snapshotter', layout.snapshotterSocket, '--snapshots', layout.snapshots]),
    ...guestImages.flatMap((pattern) => ['--guest-image', pattern]),
  ]
}

/** `shim.conf` (native/host/shim/settings.h). Under systemd the shim only waits: two may not start the daemon. */
export function shimConfig(layout: NodeLayout, options: DaemonOptions, service: ServiceKind): string {
  const start = service === 'systemd' ? [] : daemonWords(layout, options).map((word) => `daemon ${word}`)
  return [
    '# Written by caisson node install.',
    `socket ${layout.nodeSocket}`,
    `log ${layout.nodeLog}`,
    ...start,
    '',
  ].join('\n')
}

/**
 * A unit of systemd (systemd.service(5)). Machines of pods are children of the daemon and outlive it: only the daemon
 * itself is stopped, and its directory below /run stays.
 */
export function systemdUnit(layout: NodeLayout, options: DaemonOptions): string {
  return `# Written by caisson node install; caisson node uninstall removes it.
[Unit]
Description=Caisson: confidential pods of this node
Documentation=man:systemd.service(5)
# containerd asks for snapshots as soon as it runs.
Before=containerd.service

[Service]
Type=exec
ExecStart=${daemonWords(layout, options).join(' ')}
KillMode=process
Restart=always
RestartSec=1
LimitNOFILE=1048576
LimitCORE=0
TasksMax=infinity
Delegate=yes
OOMScoreAdjust=-999

[Install]
WantedBy=multi-user.target
`
}
