import { resolve } from 'node:path'
import { buildGuest } from '#guest/build/build'
import { keepPlaceholder } from '#host-shim/containerd/placeholder'
import type { NodeConfig } from '#host-shim/node/node-config'
import { NodeDaemon } from '#host-shim/node/node-daemon'
import { DEFAULT_SCRATCH_MIB } from '#host-shim/pod/pod-plan'
import { serveSnapshotter } from '#host-shim/snapshotter/serve'
import { CAISSON_POD } from '#native/host/index'
import { chooseAccelerator } from '#vmm/qemu/accelerator'
import { createTpmCa } from '#vmm/swtpm'
import { buildProgress } from '../build-progress.ts'
import type { CommandSpec, Invocation } from '../command.ts'
import { NODE_PATH_OPTIONS, type NodePaths, nodePaths } from '../node-paths.ts'
import { untilStopped } from '../signals.ts'

export const nodeServe: CommandSpec = {
  path: 'node serve',
  summary:
    'Serves the pods of this node to containerd until it is stopped. Pods go on without it; requests wait for the next one.',
  operands: '',
  minOperands: 0,
  maxOperands: 0,
  options: {
    ...NODE_PATH_OPTIONS,
    'shim-sockets': {
      type: 'string',
      placeholder: 'DIR',
      help: 'where containerd finds the sockets of pods',
      default: '/run/containerd/s',
    },
    platform: { type: 'string', placeholder: 'tpm|none', help: 'of pods that do not say', default: 'tpm' },
    accel: { type: 'string', placeholder: 'auto|kvm|tcg', help: 'how the CPU is virtualised', default: 'auto' },
    firmware: {
      type: 'string',
      placeholder: 'FILE',
      help: 'firmware of platform tpm',
      default: '/usr/share/ovmf/OVMF.fd',
    },
    'tpm-ca': {
      type: 'string',
      placeholder: 'DIR',
      help: 'CA that signs software TPMs',
      default: '/var/lib/caisson/tpm-ca',
    },
    'kubelet-root': {
      type: 'string',
      placeholder: 'DIR',
      default: '/var/lib/kubelet',
      help: 'where the kubelet keeps pods and their volumes',
    },
    scratch: {
      type: 'string',
      placeholder: 'MIB',
      help: 'encrypted scratch disk of a pod',
      default: String(DEFAULT_SCRATCH_MIB),
    },
    'guest-image': {
      type: 'string',
      placeholder: 'REPOSITORY',
      multiple: true,
      help: 'images whose layers only guests fetch: a registry, a path or a repository; * for all',
    },
  },
  examples: ['caisson node serve --platform tpm --guest-image registry.example/shop/'],
  run: async (invocation) => {
    const paths = nodePaths(invocation)
    const config = await nodeConfig(invocation, paths)
    const guestImages = invocation.strings('guest-image')
    const daemon = await NodeDaemon.start(config, async () => {
      if (guestImages.length === 0) return
      await serveSnapshotter({
        socket: paths.snapshotter,
        directory: paths.snapshots,
        containerd: paths.containerd,
        guestImages,
      })
    })
    const ended = new AbortController()
    void keepPlaceholder(paths.containerd, ended.signal, config.log)
    invocation.out.result({ socket: config.socket, pid: process.pid }, `serving pods on ${config.socket}`)
    await untilStopped()
    ended.abort()
    await daemon[Symbol.asyncDispose]()
    // The pods' processes are children that go on, and nothing here is to wait for them.
    process.exit(0)
  },
}

async function nodeConfig(invocation: Invocation, paths: NodePaths): Promise<NodeConfig> {
  const { out } = invocation
  const choice = await chooseAccelerator(invocation.oneOf('accel', ['auto', 'kvm', 'tcg']))
  out.progress(`accelerator ${choice.accelerator}: ${choice.reason}`, { accelerator: choice.accelerator })
  let guest: ReturnType<NodeConfig['guest']> | undefined
  return {
    stateRoot: resolve(paths.stateRoot),
    socket: paths.socket,
    shimSocketDir: invocation.required('shim-sockets'),
    podProgram: CAISSON_POD,
    platform: invocation.oneOf('platform', ['tpm', 'none']),
    accelerator: choice.accelerator,
    guest: () => {
      guest ??= guestFiles(invocation)
      return guest
    },
    tpmCa: () => createTpmCa(invocation.required('tpm-ca')),
    kubeletRoot: invocation.required('kubelet-root'),
    scratchMib: invocation.integer('scratch', 64, 16 * 1024 * 1024),
    log: (line) => out.progress(line),
  }
}

async function guestFiles(invocation: Invocation): ReturnType<NodeConfig['guest']> {
  const image = await buildGuest({ onProgress: buildProgress(invocation.out) })
  return {
    kernel: image.kernelPath,
    root: image.rootPath,
    commandLine: image.manifest.cmdline,
    firmware: invocation.required('firmware'),
  }
}
