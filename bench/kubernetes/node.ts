/** One node for the measurements: containerd with pods of Caisson and of runc, from images with the same programs. */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { askDaemon } from '#host-shim/node/ask-daemon'
import { type Cluster, startCluster } from '#test/fixtures/kubernetes/cluster'
import type { KubernetesContainer, KubernetesPod } from '#test/fixtures/kubernetes/kubelet'
import { FileScope } from '#test/fixtures/kubernetes/scope'

export const STREAM_MIB = 64
export const SIDES = ['caisson', 'runc'] as const
export type Side = (typeof SIDES)[number]

const WAIT = 'echo ready; while :; do sleep 1; done'
const POUR = `dd if=/dev/zero bs=1M count=${STREAM_MIB} 2>/dev/null`
/** Starts of a program, for what one costs in a guest; a line before and after them. */
export const FORKS = 50
const FORK = `echo begin; i=0; while [ $i -lt ${FORKS} ]; do /bin/true; i=$((i+1)); done; echo end`
type Program = 'wait' | 'pour' | 'fork' | 'stream'
const COMMANDS: Readonly<Record<Program, readonly string[]>> = {
  wait: ['/bin/sh', '-c', WAIT],
  pour: ['/bin/sh', '-c', POUR],
  fork: ['/bin/sh', '-c', FORK],
  stream: ['/bin/stream', 'serve', '7001', '7002'],
}
const POLICY = (image: string): string =>
  Object.entries(COMMANDS)
    .map(
      ([name, args]) =>
        `  - { name: ${name}, image: ${image}, args: ${JSON.stringify(args)}, logs: allow, stdin: true, exec: [[/bin/true]], max: 64 }`,
    )
    .join('\n')

export class BenchNode implements AsyncDisposable {
  readonly cluster: Cluster
  readonly #scope: FileScope
  /** The program that `stream` runs, for this machine. */
  readonly stream: string

  private constructor(cluster: Cluster, scope: FileScope, stream: string) {
    this.cluster = cluster
    this.#scope = scope
    this.stream = stream
  }

  static async start(): Promise<BenchNode> {
    const scope = new FileScope()
    const folder = mkdtempSync(join(tmpdir(), 'bench-'))
    scope.teardown(() => rmSync(folder, { recursive: true, force: true }))
    const stream = join(folder, 'stream')
    const source = fileURLToPath(new URL('stream.c', import.meta.url))
    execFileSync('gcc', ['-static', '-O2', '-s', '-Wall', '-Werror', '-o', stream, source])
    const program = { path: 'bin/stream', type: 'file' as const, mode: 0o755, content: readFileSync(stream) }
    const cluster = await startCluster(scope, POLICY, { layers: [{ compression: 'gzip', entries: [program] }] })
    for (const { reference } of [cluster.image, cluster.other]) await cluster.kubelet.pull(reference)
    return new BenchNode(cluster, scope, stream)
  }

  runPod(side: Side, name: string): Promise<KubernetesPod> {
    const { kubelet, initdata } = this.cluster
    return kubelet.runPod({ name, ...(side === 'caisson' ? { initdata } : { handler: 'runc' }) })
  }

  create(side: Side, pod: KubernetesPod, name: Program): Promise<KubernetesContainer> {
    const { image, other } = this.cluster
    return pod.create(name, (side === 'caisson' ? image : other).reference, { command: [...COMMANDS[name]] })
  }

  async run(side: Side, pod: KubernetesPod, name: Program): Promise<KubernetesContainer> {
    const container = await this.create(side, pod, name)
    await container.start()
    return container
  }

  /** Lines of a container's log with the moment at which containerd wrote each, milliseconds. */
  logOf(pod: string, name: Program): readonly { readonly atMs: number; readonly text: string }[] {
    const lines = readFileSync(this.cluster.containerd.path(`logs/${pod}/${name}.log`), 'utf8').split('\n')
    return lines
      .filter((line) => line !== '')
      .map((line) => {
        const [time = '', , tag = '', ...words] = line.split(' ')
        // Nanoseconds are more than Date reads.
        const fraction = Number(`0${/\.\d+/.exec(time)?.[0] ?? ''}`)
        const atMs = Date.parse(time.replace(/\.\d+/, '')) + fraction * 1000
        return { atMs, text: `${words.join(' ')}${tag === 'F' ? '\n' : ''}` }
      })
  }

  /** Seconds that the daemon has spent so far, by the metric's name and label: "rpc create", "boot kernel". */
  async seconds(): Promise<ReadonlyMap<string, number>> {
    const text = await askDaemon(join(this.cluster.containerd.state, 'node.sock'), 'metrics')
    const sums = text.matchAll(
      /^caisson_(?<name>[a-z]+)(?:_stage)?_seconds_sum(?:\{[a-z]+="(?<label>[^"]*)"\})? (?<sum>\S+)$/gm,
    )
    return new Map(
      [...sums].map(({ groups = {} }) => [`${groups.name} ${groups.label ?? ''}`.trim(), Number(groups.sum)]),
    )
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#scope.end()
  }
}
