/**
 * One Kubernetes pod as its node's daemon knows it. Every change is in the record before anybody hears of it; what is
 * not in the record can be found again in the guest, so a daemon that comes later goes on where this one stopped.
 */
import { rm } from 'node:fs/promises'
import { timestampFromMs } from '@bufbuild/protobuf/wkt'
import { errorText } from '#protocol/errors'
import { rpcStatus } from '#protocol/ttrpc/status'
import { TaskDeleteSchema } from '../containerd/gen/events_pb.ts'
import { GrpcClient } from '../containerd/grpc.ts'
import { joinPodNetwork, leavePodNetwork } from '../network/pod-network.ts'
import { GuestRefusalError } from '../pod/agent-client.ts'
import { isSameProcess } from '../pod/process-identity.ts'
import { podPaths, removePod } from '../pod/state-dir.ts'
import { podBlockDevices } from '../volumes/block-devices.ts'
import { VolumeFeed } from '../volumes/volume-feed.ts'
import { ANNOTATION } from './annotations.ts'
import { readBundle } from './bundle.ts'
import { EventPublisher, eventRecord } from './event-publisher.ts'
import { adoptMachine, bootMachine, type Machine } from './machine.ts'
import { causeOf } from './machine-end.ts'
import type { NodeMetrics } from './metrics.ts'
import type { NodeConfig } from './node-config.ts'
import { forwardClient } from './pod-ports.ts'
import { PodProgress } from './pod-progress.ts'
import { type EventRecord, type PodRecord, type PodStore, podIdOf } from './pod-record.ts'
import { planPod } from './pod-sizing.ts'
import { ProcessEnds } from './process-ends.ts'
import { type Process, Processes, UNKNOWN_EXIT } from './processes.ts'
import type { RelayControl } from './relay-control.ts'
import { resumeTasks } from './resumed-tasks.ts'
import { sandboxRequest } from './sandbox-request.ts'

const STOP_GRACE_MS = 5000

export class NodePod {
  readonly record: PodRecord
  readonly processes: Processes
  readonly containerd: GrpcClient
  /** Content of the host for the guest's volumes. */
  readonly volumes: VolumeFeed
  readonly #config: NodeConfig
  readonly #store: PodStore
  readonly #publisher: EventPublisher
  readonly #ends: ProcessEnds
  readonly #relay = Promise.withResolvers<RelayControl>()
  readonly #resumed = Promise.withResolvers<void>()
  #attached: RelayControl | undefined
  #unsaved = false
  #machine: Machine | undefined
  /** Of what ends because the machine does. */
  #exitWhenLost = UNKNOWN_EXIT
  #stopping = false
  #machineEnd: Promise<string> | undefined
  #ended: Promise<void> | undefined

  readonly progress: PodProgress = new PodProgress()
  readonly #metrics: NodeMetrics

  constructor(record: PodRecord, config: NodeConfig, store: PodStore, metrics: NodeMetrics) {
    this.record = record
    this.#metrics = metrics
    this.processes = new Processes(record)
    this.containerd = new GrpcClient(record.containerd.grpc)
    this.#config = config
    this.#store = store
    const log = (line: string): void => this.#log(line)
    this.volumes = new VolumeFeed({ send: (messages) => this.guest().agent.setVolume(messages), log })
    this.#ends = new ProcessEnds({
      processes: this.processes,
      machine: () => this.#machine,
      saveAnd: (...events) => this.saveAnd(...events),
      log,
    })
    const { namespace, events, containerd } = record
    this.#publisher = new EventPublisher({ namespace, address: containerd.ttrpc, events, saved: () => this.save() })
    this.#relay.promise.catch(() => undefined)
    this.#resumed.promise.catch(() => undefined)
  }

  /** The relay, once it has connected. */
  get relay(): Promise<RelayControl> {
    return this.#attached === undefined ? this.#relay.promise : Promise.resolve(this.#attached)
  }

  /** Resolves when what an earlier daemon left has been taken over. */
  get resumed(): Promise<void> {
    return this.#resumed.promise
  }

  get machine(): Machine | undefined {
    return this.#machine
  }

  /** Before anything is made that only the record leads to. @throws UnavailableError ERR_NODE_STATE */
  saveFirst(): void {
    if (this.#ended === undefined) this.#store.save(this.record)
    this.#unsaved = false
  }

  /** What has happened has happened, also on a full disk: a daemon that comes later may hear of it from the guest. */
  save(): void {
    try {
      this.saveFirst()
    } catch (error) {
      if (!this.#unsaved) this.#log(`its record is not written: ${errorText(error)}`)
      this.#unsaved = true
    }
  }

  /** Writes the state together with the event that tells of it. */
  saveAnd(...events: readonly EventRecord[]): void {
    this.record.events.push(...events)
    this.save()
    void this.#publisher.flush()
  }

  /** Called when the relay connects: of a new pod, or of one that an earlier daemon left. */
  async attachRelay(relay: RelayControl): Promise<void> {
    try {
      await relay.ready
      this.#attached = relay
      relay.onClient = (client, port) =>
        void forwardClient(this, relay, { client, port, log: (line) => this.#log(line) })
      this.#relay.resolve(relay)
      await this.#resume()
    } catch (error) {
      this.#log(`${errorText(error)}`)
      this.#lose()
    }
    this.#resumed.resolve()
    void this.#publisher.flush()
  }

  /** Boots the VM of the sandbox. */
  async boot(): Promise<number> {
    const { sandboxId, bundle: directory } = this.record
    const relay = await this.relay
    const bundle = await readBundle(directory)
    const { networkNamespace } = bundle
    const network = networkNamespace === undefined ? undefined : await joinPodNetwork(networkNamespace)
    const disks = await podBlockDevices(this.#config.kubeletRoot, bundle.annotations[ANNOTATION.podUid] ?? '')
    this.record.disks = disks.map(({ serial, number }) => ({ serial, number }))
    const plan = await planPod(podIdOf(sandboxId), bundle, network, this.#config, disks)
    const start = performance.now()
    const machine = await bootMachine(plan, relay, {
      stateRoot: this.#config.stateRoot,
      podProgram: this.#config.podProgram,
      qemuProgram: this.#config.qemuProgram,
      onStage: (stage, atMs) => {
        this.#metrics.boot.observe(atMs / 1000, { stage })
        this.#log(`${Math.round(atMs)} ms ${stage}`)
      },
      onDiskFull: (full) => this.#tellRoom(full),
    })
    this.#metrics.boot.observe((performance.now() - start) / 1000, { stage: 'ready' })
    this.#use(machine)
    return this.pid()
  }

  /** The machine. @throws RpcError failed precondition when it is gone */
  guest(): Machine {
    if (this.#machine === undefined) throw rpcStatus('failedPrecondition', 'the machine of the pod is not running')
    return this.#machine
  }

  /** What containerd takes for the pid of every task of the pod: the machine's process on the host. */
  pid(): number {
    return this.guest().process.pid
  }

  /** Network, attestation, policy: afterwards the guest takes containers. */
  async startSandbox(): Promise<void> {
    const request = await sandboxRequest(await readBundle(this.record.bundle))
    const { attestation, attestations } = this.#metrics
    try {
      await attestation.time({}, () => this.guest().agent.startSandbox(request))
      attestations.add({ outcome: 'attested' })
    } catch (error) {
      attestations.add({ outcome: error instanceof GuestRefusalError ? error.code : 'lost' })
      throw await causeOf(error, this.#machineEnd)
    }
  }

  /** Follows a process until it ends, however often the daemon changes. */
  watch(process: Process): void {
    this.#ends.watch(process)
  }

  /** The first process ended, or an exec: execs first, then the state, then who waits. */
  stopped(process: Process, exitStatus: number): Promise<void> {
    return this.#ends.stopped(process, exitStatus)
  }

  /** Takes a stopped process off the record. */
  forget({ task, execId, record }: Process): void {
    if (execId === '') delete this.record.tasks[task.id]
    else delete task.execs[execId]
    const deleted = {
      containerId: task.id,
      pid: record.pid,
      exitStatus: record.exitStatus,
      exitedAt: timestampFromMs(record.exitedAtMs),
      id: execId,
    }
    // Execs are deleted without an event, as containerd's own shim does.
    this.saveAnd(...(execId === '' ? [eventRecord('/tasks/delete', TaskDeleteSchema, deleted)] : []))
  }

  /** Ends the VM; the tasks that still run end with it. `exitStatus` is theirs. */
  async stopMachine(exitStatus: number, graceMs: number = STOP_GRACE_MS): Promise<void> {
    this.#exitWhenLost = exitStatus
    this.#stopping = true
    this.volumes[Symbol.dispose]()
    this.#attached?.closePorts()
    await this.#machine?.stop(graceMs)
    await this.#clean()
    // Also when there never was a machine.
    this.#lose()
  }

  /** As `stopMachine`, for nobody who waits: containerd deletes what it killed, and that tries again. */
  killMachine(exitStatus: number, graceMs?: number): void {
    this.stopMachine(exitStatus, graceMs).catch((error: unknown) => {
      this.#log(`what its machine left is not removed: ${errorText(error)}`)
    })
  }

  /** Removes the pod and everything it made. Idempotent; after a failure the next call tries again. */
  end(): Promise<void> {
    this.#ended ??= this.#end().catch((error: unknown) => {
      this.#ended = undefined
      throw error
    })
    return this.#ended
  }

  async #end(): Promise<void> {
    await this.stopMachine(UNKNOWN_EXIT, 0)
    for (const task of this.processes.tasks()) {
      await this.stopped({ task, execId: '', record: task }, UNKNOWN_EXIT)
    }
    await Promise.race([this.#publisher.flush(), new Promise((resolve) => setTimeout(resolve, 5000))])
    this.#publisher.close()
    // A relay removes it itself, unless it was killed.
    await rm(this.record.socket, { force: true })
    this.#store.remove(this.record.sandboxId)
    this.containerd[Symbol.dispose]()
    this.#attached?.end()
  }

  async #clean(): Promise<void> {
    await removePod(podPaths(this.#config.stateRoot, podIdOf(this.record.sandboxId)))
    const bundle = await readBundle(this.record.bundle).catch(() => undefined)
    if (bundle?.networkNamespace !== undefined) await leavePodNetwork(bundle.networkNamespace).catch(() => undefined)
  }

  #use(machine: Machine): void {
    this.#machine = machine
    const isNew = this.record.machine === undefined
    this.record.machine = machine.process
    if (isNew) this.saveFirst()
    this.#machineEnd = machine.exited
    void machine.exited.then((why) => this.#lostAlone(why))
    void this.#listen(machine)
  }

  /** What the guest tells of its life; for people, so its end is nobody's trouble. */
  async #listen({ agent }: Machine): Promise<void> {
    try {
      for await (const event of agent.watchEvents()) {
        this.progress.take(event)
        if (event.errorCode !== '') this.#metrics.refusals.add({ code: event.errorCode })
      }
    } catch {
      // The machine is gone, or the agent's connection.
    }
  }

  /** Resolves with what ended the machine; undefined when there never was one. */
  get machineEnd(): Promise<string> | undefined {
    return this.#machineEnd
  }

  /** What nobody asked for is told: in the log, and in the message that the kubelet shows of each container. */
  async #lostAlone(why: string): Promise<void> {
    if (!this.#stopping) {
      this.#log(`its machine has ended: ${why}`)
      for (const task of this.processes.tasks()) {
        if (task.status !== 'running' && task.status !== 'paused') continue
        await this.#ends.lastWords(task, new TextEncoder().encode(`the machine of the pod has ended: ${why}\n`))
      }
    }
    this.#lose()
  }

  /** Everything that ran in the machine has ended with it. */
  #lose(): void {
    this.#machine = undefined
    const tasks = this.processes.tasks().toSorted((a, b) => Number(a.kind === 'sandbox') - Number(b.kind === 'sandbox'))
    for (const task of tasks) {
      if (task.status === 'creating') continue
      void this.stopped({ task, execId: '', record: task }, this.#exitWhenLost)
    }
  }

  #log(line: string): void {
    this.#config.log(`pod ${this.record.sandboxId}: ${line}`)
  }

  #tellRoom(full: boolean): void {
    this.#log(full ? 'a disk of this machine is full, the pod waits for room' : 'there is room again, the pod goes on')
  }

  async #resume(): Promise<void> {
    const { machine, sandboxId } = this.record
    if (machine === undefined) return
    if (!(await isSameProcess(machine))) return this.#lose()
    const { stateRoot } = this.#config
    const onDiskFull = (full: boolean): void => this.#tellRoom(full)
    this.#use(await adoptMachine(podIdOf(sandboxId), machine, { stateRoot, onDiskFull }))
    await resumeTasks(this)
  }
}
