/** A private node below a folder: an operator's containerd with its own sockets, and `caisson` as a program. */
import { type ChildProcess, execFile, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { ExecutionContext } from 'ava'
import { GrpcClient } from '#host-shim/containerd/grpc'
import { RuntimeService } from '../../fixtures/cri/gen/cri_pb.ts'
import { containerdFolder, type Release } from './containerds.ts'

const MAIN = fileURLToPath(new URL('../../../cli/caisson.mjs', import.meta.url))

export interface CliAnswer {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

export class TestNode {
  readonly root: string
  readonly #t: ExecutionContext
  readonly #folder: string
  #containerd: ChildProcess | undefined
  #daemon: ChildProcess | undefined

  private constructor(t: ExecutionContext, root: string, folder: string) {
    this.#t = t
    this.root = root
    this.#folder = folder
  }

  /** @param form version of the operator's configuration file */
  static async make(t: ExecutionContext, release: Release, form: 2 | 3 = 2): Promise<TestNode> {
    const root = mkdtempSync(join(tmpdir(), 'cn-'))
    t.teardown(() => rmSync(root, { recursive: true, force: true }))
    const node = new TestNode(t, root, await containerdFolder(release))
    mkdirSync(node.path('etc/containerd'), { recursive: true })
    writeFileSync(node.config, operatorsConfig(root, form), { mode: 0o640 })
    return node
  }

  get config(): string {
    return this.path('etc/containerd/config.toml')
  }

  get address(): string {
    return this.path('run/containerd/containerd.sock')
  }

  get program(): string {
    return join(this.#folder, 'containerd')
  }

  path(name: string): string {
    return join(this.root, name)
  }

  /** `caisson node WORDS…` for this node. */
  caisson(...words: readonly string[]): Promise<CliAnswer> {
    const own = words[0] === 'install' || words[0] === 'check' ? ['--containerd-program', this.program] : []
    return run(process.execPath, [
      '--disable-warning=ExperimentalWarning',
      MAIN,
      'node',
      ...words,
      '--root',
      this.root,
      ...own,
    ])
  }

  /** Starts the node's daemon with the words that the installation gave to the shim. */
  async startDaemon(): Promise<void> {
    const words = readFileSync(this.path('usr/local/etc/caisson/shim.conf'), 'utf8')
      .split('\n')
      .flatMap((line) => (line.startsWith('daemon ') ? [line.slice('daemon '.length)] : []))
    const [program = '', ...rest] = words
    const child = this.#spawn(program, rest, 'daemon.log')
    this.#daemon = child
    await this.#until(child, 'daemon.log', () => this.log('daemon.log').includes('serving pods on'))
  }

  /** Starts containerd with the node's configuration; CRI answers when this returns. @param namespace path of a network namespace */
  async startContainerd(namespace?: string): Promise<void> {
    const words = [this.program, '--config', this.config]
    const [program = '', ...rest] = namespace === undefined ? words : ['nsenter', `--net=${namespace}`, ...words]
    const child = this.#spawn(program, rest, 'containerd.log')
    this.#containerd = child
    await this.#until(child, 'containerd.log', async () => (await this.status()) !== undefined)
  }

  async stopDaemon(): Promise<void> {
    if (this.#daemon !== undefined) await end(this.#daemon)
  }

  async stopContainerd(): Promise<void> {
    if (this.#containerd !== undefined) await end(this.#containerd)
  }

  /** CRI's conditions by name, and its configuration as the plugin tells it; undefined while it does not answer. */
  async status(): Promise<{ conditions: Record<string, boolean>; config: unknown } | undefined> {
    using cri = new GrpcClient(this.address)
    const answer = await cri
      .unary(RuntimeService.method.status, { verbose: true }, { timeoutMs: 60_000 })
      .catch(() => undefined)
    if (answer?.status === undefined) return undefined
    const conditions = Object.fromEntries(answer.status.conditions.map(({ type, status }) => [type, status]))
    return { conditions, config: JSON.parse(answer.info.config ?? '{}') }
  }

  ctr(...words: readonly string[]): string {
    return execFileSync(join(this.#folder, 'ctr'), ['--address', this.address, ...words], { encoding: 'utf8' })
  }

  /** Every path below the folders that an installation touches, with mode and content. */
  tree(): readonly string[] {
    return ['etc', 'usr', 'var/lib/caisson'].flatMap((folder) => {
      if (!existsSync(this.path(folder))) return []
      const names = readdirSync(this.path(folder), { recursive: true, encoding: 'utf8' })
      return ['', ...names].toSorted().map((name) => {
        const path = join(this.path(folder), name)
        const status = lstatSync(path)
        const content = status.isSymbolicLink()
          ? readlinkSync(path)
          : status.isFile()
            ? readFileSync(path, 'latin1')
            : ''
        return `${folder}/${name} ${status.mode.toString(8)} ${content}`
      })
    })
  }

  log(name: string): string {
    return existsSync(this.path(name)) ? readFileSync(this.path(name), 'utf8') : ''
  }

  #spawn(program: string, words: readonly string[], log: string): ChildProcess {
    const fd = openSync(this.path(log), 'a')
    // As systemd's default has it: containerd 1.6 looks for shims there.
    const PATH = `${this.path('usr/local/bin')}:${process.env.PATH ?? ''}`
    const child = spawn(program, words, { stdio: ['ignore', fd, fd], env: { ...process.env, PATH } })
    this.#t.teardown(() => end(child))
    return child
  }

  async #until(child: ChildProcess, log: string, holds: () => boolean | Promise<boolean>): Promise<void> {
    for (const deadline = Date.now() + 120_000; ; ) {
      if (await holds()) return
      if (child.exitCode !== null || Date.now() > deadline) throw new Error(this.log(log).slice(-3000))
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
  }
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const exited = once(child, 'exit')
  child.kill('SIGTERM')
  await exited
}

function run(program: string, words: readonly string[]): Promise<CliAnswer> {
  const { NODE_EXTRA_CA_CERTS: _roots, ...env } = process.env
  return new Promise((resolve) => {
    execFile(program, words, { env, maxBuffer: 16 << 20 }, (error, stdout, stderr) => {
      resolve({ code: error === null ? 0 : Number(error.code ?? 1), stdout, stderr })
    })
  })
}

/** What an operator would have written, with comments; nothing of it may be lost. */
function operatorsConfig(root: string, form: 2 | 3): string {
  const sandbox =
    form === 3
      ? `[plugins.'io.containerd.cri.v1.images'.pinned_images]\n  sandbox = 'registry.example/pause:9' # ours`
      : `[plugins."io.containerd.grpc.v1.cri"]\n  sandbox_image = "registry.example/pause:9" # ours`
  const runc = form === 3 ? `plugins.'io.containerd.cri.v1.runtime'` : `plugins."io.containerd.grpc.v1.cri"`
  return `# Written by the operator.
version = ${form}
root = "${root}/containerd-root"
state = "${root}/containerd-state"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.nri.v1.nri"]

[grpc]
  address = "${root}/run/containerd/containerd.sock"

${sandbox}
[${runc}.containerd]
  default_runtime_name = "runc"
[${runc}.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
  [${runc}.containerd.runtimes.runc.options]
    SystemdCgroup = true # the kubelet's driver`
}
