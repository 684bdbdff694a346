/**
 * The node's daemon: it decides for all pods of a node, and keeps none of them alive. Shims ask it where a pod's socket
 * shall be; relays bring it containerd's requests.
 */
import { createHash } from 'node:crypto'
import { mkdir } from 'node:fs/promises'
import { createServer, type Server, type Socket } from 'node:net'
import { join } from 'node:path'
import { errorText, UnavailableError, UsageError } from '#protocol/errors'
import { byteStreamFromDuplex } from '#protocol/node/duplex-stream'
import { TtrpcServer } from '#protocol/ttrpc/server'
import { Task } from '../containerd/gen/task_pb.ts'
import { Task as TaskV3 } from '../containerd/gen/task-v3_pb.ts'
import { identifyProcess, isSameProcess } from '../pod/process-identity.ts'
import { AbandonedRemoval } from './abandoned.ts'
import { ANNOTATION } from './annotations.ts'
import type { Question } from './ask-daemon.ts'
import { type Block, field, readBlock } from './blocks.ts'
import { readBundle } from './bundle.ts'
import { DaemonLock } from './daemon-lock.ts'
import { NodeMetrics } from './metrics.ts'
import { MonitorSocket, monitorSocketIn } from './monitor-socket.ts'
import type { NodeConfig } from './node-config.ts'
import { NodePod } from './node-pod.ts'
import { type PodRecord, PodStore } from './pod-record.ts'
import { metricsText, type PodReport, reportPod } from './pod-report.ts'
import { isServed, listenPrivately } from './private-socket.ts'
import { SIGKILL_EXIT } from './processes.ts'
import { RelayControl } from './relay-control.ts'
import { taskStatus } from './task-errors.ts'
import { taskService } from './task-service.ts'
import { timedService } from './timed-service.ts'

interface Served {
  readonly pod: NodePod
  readonly server: TtrpcServer
}

/** Between two looks for what containerd has forgotten. No request of containerd's leaves a pod without a task for so long. */
const ABANDONED_MS = 30_000

export class NodeDaemon implements AsyncDisposable {
  readonly #config: NodeConfig
  readonly #store: PodStore
  readonly #pods = new Map<string, Served>()
  readonly #lock: DaemonLock
  readonly #server: Server
  readonly #connections = new Set<Socket>()
  readonly #metrics = new NodeMetrics()
  readonly #abandoned: AbandonedRemoval
  readonly #answers: Readonly<Record<Question, () => Promise<string>>> = {
    report: async () => `${JSON.stringify(await this.#report())}\n`,
    metrics: async () => metricsText(this.#metrics, await this.#report()),
  }
  #monitor: MonitorSocket | undefined
  #looks: ReturnType<typeof setInterval> | undefined

  private constructor(config: NodeConfig, lock: DaemonLock) {
    this.#config = config
    this.#lock = lock
    this.#store = new PodStore(config.stateRoot)
    this.#abandoned = new AbandonedRemoval({ end: (pod) => this.#endUnasked(pod), log: config.log })
    this.#server = createServer({ allowHalfOpen: true }, (socket) => void this.#take(socket))
  }

  /**
   * Takes over the pods of an earlier daemon and listens.
   *
   * @param serveBeside what whoever finds this daemon expects to be there as well, such as the snapshotter
   * @throws UnavailableError ERR_NODE_RUNNING
   */
  static async start(config: NodeConfig, serveBeside: () => Promise<unknown> = async () => {}): Promise<NodeDaemon> {
    await mkdir(config.stateRoot, { recursive: true, mode: 0o700 })
    // A shim that finds none starts one, perhaps while another is about to listen.
    const lock = DaemonLock.take(join(config.stateRoot, 'node.lock'))
    if (lock === undefined || (await isServed(config.socket))) {
      lock?.[Symbol.dispose]()
      throw nodeRunning(config)
    }
    await using starting = new AsyncDisposableStack()
    starting.use(lock)
    const daemon = starting.use(new NodeDaemon(config, lock))
    await daemon.#adopt()
    await serveBeside()
    await daemon.#listen()
    starting.move()
    return daemon
  }

  /** Ends this process's part; pods go on, and wait for the next daemon. */
  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#looks)
    const closed = new Promise((resolve) => this.#server.close(resolve))
    for (const socket of this.#connections) socket.destroy()
    await closed
    await this.#monitor?.[Symbol.asyncDispose]()
    this.#lock[Symbol.dispose]()
  }

  async #listen(): Promise<void> {
    const { socket, stateRoot, log, abandonedMs = ABANDONED_MS } = this.#config
    this.#monitor = await MonitorSocket.listen({ path: monitorSocketIn(stateRoot), answers: this.#answers, log })
    await listenPrivately(this.#server, socket)
    const look = (): void => this.#abandoned.look([...this.#pods.values()].map(({ pod }) => pod))
    this.#looks = setInterval(look, abandonedMs).unref()
  }

  async #adopt(): Promise<void> {
    const records = this.#store.load((path, error) => this.#config.log(`${path}: ${errorText(error)}`))
    for (const record of records) {
      const { pod } = this.#serve(record)
      // A relay that is gone took its pod along; what they left is removed here.
      const alive = record.relay !== undefined && (await isSameProcess(record.relay))
      if (!alive) await this.#endUnasked(pod)
    }
  }

  async #take(socket: Socket): Promise<void> {
    this.#connections.add(socket)
    socket.once('close', () => this.#connections.delete(socket))
    socket.on('error', () => undefined)
    try {
      const block = await readBlock(socket)
      if (block === undefined) return void socket.destroy()
      switch (block.verb) {
        case 'start':
          return await this.#start(block, socket)
        case 'delete':
          return await this.#delete(block, socket)
        case 'pod':
          return await this.#relay(block, socket)
        case 'task':
          return await this.#task(block, socket)
        case 'report':
        case 'metrics':
          return void socket.end(await this.#answers[block.verb]())
        default:
          socket.destroy()
      }
    } catch (error) {
      this.#config.log(`a connection failed: ${errorText(error)}`)
      socket.destroy()
    }
  }

  /** A shim starts: for a sandbox it leaves a relay behind, a container joins the relay of its pod. */
  async #start(block: Block, socket: Socket): Promise<void> {
    try {
      socket.end(`${await this.#role(block)}\n`)
    } catch (error) {
      socket.end(`error ${taskStatus(error).message.replaceAll('\n', ' ')}\n`)
    }
  }

  async #role(block: Block): Promise<string> {
    const id = field(block, 'id')
    const namespace = field(block, 'namespace')
    const bundle = field(block, 'bundle')
    const { annotations } = await readBundle(bundle)
    const type = annotations[ANNOTATION.containerType]
    if (type !== 'sandbox' && type !== 'container') {
      throw new UsageError('ERR_BUNDLE', `${bundle} belongs to no pod`, {
        hint: 'The runtime serves pods that the CRI plugin makes; a single container is run with: caisson run',
      })
    }
    const sandboxId = type === 'sandbox' ? id : (annotations[ANNOTATION.sandboxId] ?? '')
    const known = this.#pods.get(keyOf(namespace, sandboxId))
    if (known !== undefined) return `pod ${known.pod.record.socket}`
    if (type === 'container') throw new UnavailableError('ERR_SANDBOX_UNKNOWN', `there is no pod ${sandboxId}`)
    const grpc = field(block, 'address')
    const socket = join(this.#config.shimSocketDir, socketName(grpc, namespace, id))
    const record: PodRecord = {
      version: 1,
      sandboxId,
      namespace,
      bundle,
      socket,
      containerd: { grpc, ttrpc: block.fields.get('ttrpc') ?? `${grpc}.ttrpc` },
      relay: undefined,
      machine: undefined,
      tasks: {},
      events: [],
      answers: [],
      begun: [],
    }
    // A pod that is served is one that the next daemon finds: of one that could not be written down nothing is left here.
    this.#store.save(record)
    this.#serve(record)
    return `relay ${socket}`
  }

  /** containerd lost a task, or has deleted it: whatever is left of it goes. */
  async #delete(block: Block, socket: Socket): Promise<void> {
    const id = field(block, 'id')
    const namespace = field(block, 'namespace')
    const sandbox = this.#pods.get(keyOf(namespace, id))
    const pods = [...this.#pods.values()].filter(({ pod }) => pod.record.namespace === namespace)
    const task = pods.map(({ pod }) => pod.processes.find(id)).find((found) => found !== undefined)
    if (sandbox !== undefined) await this.#end(sandbox.pod)
    const stopped = task?.status === 'stopped' ? task : undefined
    const atMs = stopped?.exitedAtMs ?? Date.now()
    const seconds = Math.floor(atMs / 1000)
    socket.end(
      `deleted ${task?.pid ?? 0} ${stopped?.exitStatus ?? SIGKILL_EXIT} ${seconds} ${(atMs % 1000) * 1_000_000}\n`,
    )
  }

  async #relay(block: Block, socket: Socket): Promise<void> {
    const served = this.#find(block)
    const pid = Number(field(block, 'pid'))
    const identity = Number.isSafeInteger(pid) ? await identifyProcess(pid) : undefined
    if (served === undefined || identity === undefined) {
      // The pod was removed while the relay looked for a daemon.
      socket.end('end\n')
      return
    }
    const { pod } = served
    pod.record.relay = identity
    pod.save()
    const relay = new RelayControl(socket, pid)
    void relay.closed.then(async () => {
      if (!(await isSameProcess(identity))) await this.#endUnasked(pod)
    })
    await pod.attachRelay(relay)
  }

  async #task(block: Block, socket: Socket): Promise<void> {
    const served = this.#find(block)
    if (served === undefined) {
      socket.destroy()
      return
    }
    await served.pod.resumed
    await served.server.serve(byteStreamFromDuplex(socket))
  }

  #report(): Promise<readonly PodReport[]> {
    return Promise.all([...this.#pods.values()].map(({ pod }) => reportPod(pod)))
  }

  #find(block: Block): Served | undefined {
    return this.#pods.get(keyOf(field(block, 'namespace'), field(block, 'id')))
  }

  #serve(record: PodRecord): Served {
    const pod = new NodePod(record, this.#config, this.#store, this.#metrics)
    const server = new TtrpcServer({ toStatus: taskStatus })
    const impl = timedService(
      taskService(pod, () => void this.#endUnasked(pod)),
      this.#metrics.rpc,
    )
    server.register(Task, impl)
    server.register(TaskV3, impl)
    const served = { pod, server }
    this.#pods.set(keyOf(record.namespace, record.sandboxId), served)
    return served
  }

  /** Nobody waits for this end: what fails is told here, and tried again with the next reason to end the pod. */
  async #endUnasked(pod: NodePod): Promise<void> {
    try {
      await this.#end(pod)
    } catch (error) {
      this.#config.log(`pod ${pod.record.sandboxId}: it could not be removed: ${errorText(error)}`)
    }
  }

  async #end(pod: NodePod): Promise<void> {
    await pod.end()
    this.#pods.delete(keyOf(pod.record.namespace, pod.record.sandboxId))
  }
}

function keyOf(namespace: string, sandboxId: string): string {
  return `${namespace}/${sandboxId}`
}

/** The name that containerd's own shims give their sockets: SHA-256 over address, namespace and id. */
function socketName(address: string, namespace: string, id: string): string {
  return createHash('sha256')
    .update(join(address, namespace, id))
    .digest('hex')
}

function nodeRunning({ socket }: NodeConfig): UnavailableError {
  return new UnavailableError('ERR_NODE_RUNNING', `another daemon serves ${socket}`, {
    hint: 'One daemon per node is enough; stop the other one to start this one',
  })
}
