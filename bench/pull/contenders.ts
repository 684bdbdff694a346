/** Those who pull the same image into a folder of their own, so that it could be run from there. */
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { BenchImage } from './images.ts'
import { type Cost, measure } from './measure.ts'
import type { BenchRegistry } from './registry.ts'

export interface Contender extends AsyncDisposable {
  readonly name: string
  /** Undefined when it cannot read the image. */
  pull(image: BenchImage, name: string): Promise<Cost | undefined>
}

/** As the launcher starts it (tools/bootstrap/launcher.mjs). */
const CAISSON = [
  'MALLOC_ARENA_MAX=1',
  process.execPath,
  '--disable-warning=ExperimentalWarning',
  fileURLToPath(new URL('../../cli/caisson.mjs', import.meta.url)),
  'image',
  'pull',
]

/** @param folder where results go: its file system is what is measured */
export function caisson(registry: BenchRegistry, folder: string): Contender {
  const to = join(folder, 'caisson')
  return {
    name: 'caisson',
    pull: async (_, name) => {
      rmSync(to, { recursive: true, force: true })
      const args = ['--to', to, '--ca', registry.caFile, `${registry.host}/${name}`]
      const cost = await measure('env', [...CAISSON, ...args])
      rmSync(to, { recursive: true, force: true })
      return cost
    },
    [Symbol.asyncDispose]: () => Promise.resolve(),
  }
}

/** Debian's umoci reads no zstd. */
export function skopeoUmoci(registry: BenchRegistry, folder: string): Contender {
  const to = join(folder, 'umoci')
  const script =
    'skopeo copy -q --src-cert-dir "$1" "docker://$2" "oci:$3/image:t" && umoci unpack --image "$3/image:t" "$3/bundle"'
  return {
    name: 'skopeo + umoci',
    pull: async ({ format }, name) => {
      if (format === 'zstd') return undefined
      rmSync(to, { recursive: true, force: true })
      mkdirSync(to)
      const cost = await measure('sh', ['-c', script, 'sh', registry.certificates, `${registry.host}/${name}`, to])
      rmSync(to, { recursive: true, force: true })
      return cost
    },
    [Symbol.asyncDispose]: () => Promise.resolve(),
  }
}

/** Its own daemon with its own folders; every pull starts with nothing there. */
export async function containerd(registry: BenchRegistry, folder: string): Promise<Contender> {
  const base = join(folder, 'containerd')
  rmSync(base, { recursive: true, force: true })
  mkdirSync(base, { recursive: true })
  const socket = join(base, 'c.sock')
  const config = join(base, 'config.toml')
  writeFileSync(
    config,
    [
      'version = 2',
      `root = "${base}/root"`,
      `state = "${base}/state"`,
      'disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs"]',
      `[grpc]\n  address = "${socket}"`,
      `[ttrpc]\n  address = "${socket}.ttrpc"`,
    ].join('\n'),
  )
  // Without it containerd speaks plain HTTP to the loopback interface.
  const hosts = join(base, 'hosts')
  mkdirSync(join(hosts, registry.host), { recursive: true })
  const server = `https://${registry.host}`
  const host = `server = "${server}"\n[host."${server}"]\n  ca = "${registry.caFile}"\n`
  writeFileSync(join(hosts, registry.host, 'hosts.toml'), host)
  const child = spawn('containerd', ['--config', config, '--log-level', 'error'], { stdio: 'ignore' })
  while (!existsSync(socket)) await new Promise((tick) => setTimeout(tick, 20))
  const ctr = (...args: readonly string[]): void =>
    void execFileSync('ctr', ['--address', socket, ...args], { stdio: 'ignore' })
  return {
    name: 'containerd',
    pull: async (_, name) => {
      const reference = `${registry.host}/${name}`
      const cost = await measure(
        'ctr',
        ['--address', socket, 'images', 'pull', '--hosts-dir', hosts, '--snapshotter', 'overlayfs', reference],
        child.pid,
      )
      // The content is collected with the last reference to it.
      ctr('images', 'rm', '--sync', reference)
      return cost
    },
    [Symbol.asyncDispose]: async () => {
      const exited = once(child, 'exit')
      child.kill('SIGTERM')
      await exited
      rmSync(base, { recursive: true, force: true })
    },
  }
}
