/** Names and places of an installed node. Everything that tells somebody else where something lies takes it from here. */
import { join } from 'node:path'
import { UsageError } from '#protocol/errors'

/** `runtimeClassName`, and the key of containerd's table of runtimes. */
export const RUNTIME_HANDLER = 'caisson'
/** containerd makes `containerd-shim-caisson-v2` of it. */
export const RUNTIME_TYPE = 'io.containerd.caisson.v2'
/** Key of containerd's table of proxy plugins. */
export const SNAPSHOTTER = 'caisson'
export const SHIM_PROGRAM = 'containerd-shim-caisson-v2'
export const SERVICE = 'caisson-node.service'

export interface NodeLayout {
  /** "/" or a private root: every path below begins with it. */
  readonly root: string
  readonly launcher: string
  readonly shim: string
  /** On the PATH that systemd gives to services; containerd 1.6 looks nowhere else. The shim itself with the usual prefix. */
  readonly shimLink: string
  /** The shim looks for it at `../etc/caisson` from its own folder. */
  readonly shimConfig: string
  readonly unit: string
  /** Link that has systemd start the unit at boot. */
  readonly unitWanted: string
  /** For `kubectl apply -f`. */
  readonly runtimeClass: string
  readonly containerdConfig: string
  /** For containerd versions that merge imported files into the main one. */
  readonly containerdDropIn: string
  readonly containerdSocket: string
  /** Records and machines of pods. */
  readonly stateRoot: string
  /** Where shims connect. */
  readonly nodeSocket: string
  readonly nodeLog: string
  /** Where containerd finds the sockets of pods. */
  readonly shimSockets: string
  readonly snapshotterSocket: string
  /** Not on tmpfs: images of other runtimes are unpacked here with containerd 1.6. */
  readonly snapshots: string
  readonly tpmCa: string
  /** What was there before the installation. */
  readonly installRecord: string
}

export interface LayoutOptions {
  /** Default "/". */
  readonly root?: string | undefined
  /** Folder of programs, seen from the root; default "/usr/local". For hosts with a read-only /usr: "/opt/caisson". */
  readonly prefix?: string | undefined
  /** As it is, not below the root. */
  readonly containerdConfig?: string | undefined
  /** As it is, not below the root. */
  readonly containerdSocket?: string | undefined
}

/** sun_path holds 108 bytes with the terminating zero; sockets of a pod lie `pods/<32 characters>/console.sock` deep. */
const MAX_STATE_ROOT_BYTES = 107 - '/pods//console.sock'.length - 32

/** @throws UsageError ERR_NODE_LAYOUT */
export function nodeLayout(options: LayoutOptions = {}): NodeLayout {
  const { root = '/', prefix = '/usr/local' } = options
  for (const [name, path] of Object.entries({ root, prefix })) {
    // These paths are written into files whose formats split at white space and quotes.
    if (!/^\/[A-Za-z0-9._/-]*$/.test(path)) throw badLayout(`--${name} is ${JSON.stringify(path)}`)
  }
  const at = (path: string): string => join(root, path)
  const containerdConfig = options.containerdConfig ?? at('etc/containerd/config.toml')
  const stateRoot = at('run/caisson')
  if (Buffer.byteLength(stateRoot) > MAX_STATE_ROOT_BYTES) throw badLayout(`${stateRoot} is too long for socket paths`)
  return {
    root,
    launcher: at(`${prefix}/bin/caisson`),
    shim: at(`${prefix}/bin/${SHIM_PROGRAM}`),
    shimLink: at(`usr/local/bin/${SHIM_PROGRAM}`),
    shimConfig: at(`${prefix}/etc/caisson/shim.conf`),
    unit: at(`etc/systemd/system/${SERVICE}`),
    unitWanted: at(`etc/systemd/system/multi-user.target.wants/${SERVICE}`),
    runtimeClass: at(`${prefix}/share/caisson/runtimeclass.yaml`),
    containerdConfig,
    containerdDropIn: join(containerdConfig, '../conf.d/caisson.toml'),
    containerdSocket: options.containerdSocket ?? at('run/containerd/containerd.sock'),
    stateRoot,
    nodeSocket: join(stateRoot, 'node.sock'),
    nodeLog: join(stateRoot, 'node.log'),
    shimSockets: at('run/containerd/s'),
    snapshotterSocket: join(stateRoot, 'snapshotter.sock'),
    snapshots: at('var/lib/caisson/snapshots'),
    tpmCa: at('var/lib/caisson/tpm-ca'),
    installRecord: at('var/lib/caisson/install'),
  }
}

function badLayout(why: string): UsageError {
  return new UsageError('ERR_NODE_LAYOUT', why, {
    hint: 'Give a short absolute path of letters, digits, "-", "_", "." and "/"',
  })
}
