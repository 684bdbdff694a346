/** The task service (shim v2): one function per RPC of containerd, for the tasks of one pod. */
import type { GenService, GenServiceMethods } from '@bufbuild/protobuf/codegenv2'
import { EmptySchema, timestampFromMs } from '@bufbuild/protobuf/wkt'
import type { ServiceImpl } from '#protocol/ttrpc/server'
import { RpcError, rpcStatus } from '#protocol/ttrpc/status'
import {
  TaskExecAddedSchema,
  TaskExecStartedSchema,
  TaskPausedSchema,
  TaskResumedSchema,
  TaskStartSchema,
} from '../containerd/gen/events_pb.ts'
import { ProcessDetailsSchema } from '../containerd/gen/process-details_pb.ts'
import {
  CreateTaskResponseSchema,
  DeleteResponseSchema,
  StartResponseSchema,
  type Task,
} from '../containerd/gen/task_pb.ts'
import { Answers, REQUEST_MARK } from './answers.ts'
import { packAny } from './any.ts'
import { parseBundleProcess, parseLinuxResources } from './bundle.ts'
import { execRequest, requestedLimits } from './container-request.ts'
import { eventRecord } from './event-publisher.ts'
import { deleteInGuest, startProcess } from './guest-tasks.ts'
import type { NodePod } from './node-pod.ts'
import { newProcess, SIGKILL, SIGKILL_EXIT, SIGNAL_EXIT } from './processes.ts'
import { encodeStats, hostCgroupVersion } from './stats.ts'
import { closeInput, detach } from './stdio.ts'
import { createTask, noCheckpoints } from './task-create.ts'
import { taskStatus } from './task-errors.ts'
import { NEVER, stateOf } from './task-state.ts'

type MethodsOf<Service> = Service extends GenService<infer Methods extends GenServiceMethods> ? Methods : never
export type TaskService = ServiceImpl<MethodsOf<typeof Task>>

/** SIGCHLD, SIGCONT, SIGURG, SIGWINCH: a process that does not ask for them does not notice (signal(7)). */
const HARMLESS_SIGNALS: ReadonlySet<number> = new Set([17, 18, 23, 28])

/** @param onEmpty called after a Shutdown that found no task left */
export function taskService(pod: NodePod, onEmpty: () => void): TaskService {
  const { processes } = pod
  const answers = new Answers(pod.record, () => pod.save(), taskStatus)
  const markOf = (context: { readonly metadata: ReadonlyMap<string, readonly string[]> }): string | undefined =>
    context.metadata.get(REQUEST_MARK)?.[0]

  const service: TaskService = {
    create: (request, context) =>
      answers.once(markOf(context), CreateTaskResponseSchema, (again) => createTask(pod, request, again)),

    start: ({ id, execId }, context) =>
      answers.once(markOf(context), StartResponseSchema, async (again) => {
        const process = processes.get(id, execId)
        const { record, task } = process
        if (record.status !== 'created') {
          if (again && record.status !== 'creating') return { pid: record.pid }
          throw rpcStatus('failedPrecondition', `process of task ${id} is ${record.status}, not created`)
        }
        if (execId === '' && task.kind === 'sandbox') await pod.startSandbox()
        else await startProcess(pod, process, again)
        record.pid = pod.pid()
        // It may have ended while it was started: containerd hears of the start first all the same.
        if (record.status === 'created') record.status = 'running'
        const { pid } = record
        pod.saveAnd(
          execId === ''
            ? eventRecord('/tasks/start', TaskStartSchema, { containerId: id, pid })
            : eventRecord('/tasks/exec-started', TaskExecStartedSchema, { containerId: id, execId, pid }),
        )
        if (execId !== '') pod.watch(process)
        return { pid }
      }),

    state: async ({ id, execId }) => stateOf(processes.get(id, execId)),

    wait: async ({ id, execId }, { signal }) => {
      const process = processes.get(id, execId)
      await Promise.race([processes.ended(process), aborted(signal)])
      const { exitStatus, exitedAtMs } = process.record
      return { exitStatus, exitedAt: timestampFromMs(exitedAtMs) }
    },

    delete: ({ id, execId }, context) =>
      answers.once(markOf(context), DeleteResponseSchema, async (again) => {
        const process = processes.get(id, execId)
        const { record, task } = process
        if (record.status === 'running' || record.status === 'paused') {
          throw rpcStatus('failedPrecondition', `cannot delete a running process: ${id} ${execId}`.trim())
        }
        if (execId === '' && task.kind === 'sandbox') await pod.stopMachine(SIGKILL_EXIT)
        else await deleteInGuest(pod, process, again)
        await detach(process, await pod.relay.catch(() => undefined))
        const { pid, exitStatus, exitedAtMs } = record
        pod.forget(process)
        return { pid, exitStatus, exitedAt: exitedAtMs === 0 ? NEVER : timestampFromMs(exitedAtMs) }
      }),

    kill: ({ id, execId, signal, all }, context) =>
      answers.once(markOf(context), EmptySchema, async () => {
        const { record, task } = processes.get(id, execId)
        if (record.status === 'stopped') throw rpcStatus('notFound', 'process already finished: not found')
        if (execId !== '' && record.status === 'created') {
          throw rpcStatus('failedPrecondition', `process ${execId} of task ${id} is not started`)
        }
        if (execId === '' && task.kind === 'sandbox') {
          if (HARMLESS_SIGNALS.has(signal)) return {}
          // The sandbox has no process of its own: its end is the machine's.
          pod.killMachine(SIGNAL_EXIT + signal)
          return {}
        }
        const name = { containerId: id, ...(execId === '' ? {} : { execId }) }
        try {
          await pod.guest().agent.signal(name, signal, { all })
        } catch (error) {
          // A guest that does not even answer this is lost, and whoever kills may count on the end.
          if (signal !== SIGKILL || execId !== '' || !isSilence(error)) throw error
          // Answered before the end is told, after which containerd asks no more.
          pod.killMachine(SIGKILL_EXIT, 0)
        }
        return {}
      }),

    exec: ({ id, execId, terminal, stdin, stdout, stderr, spec }, context) =>
      answers.once(markOf(context), EmptySchema, async () => {
        const task = processes.task(id)
        if (Object.hasOwn(task.execs, execId)) throw rpcStatus('alreadyExists', `process ${execId}: already exists`)
        if (task.kind === 'sandbox') throw rpcStatus('failedPrecondition', 'the sandbox has no processes to join')
        if (task.status !== 'running')
          throw rpcStatus('failedPrecondition', `task ${id} is ${task.status}, not running`)
        const wish = execRequest(parseBundleProcess(spec?.value ?? new Uint8Array()), task.process)
        const io = newProcess({ terminal, stdin, stdout, stderr })
        task.execs[execId] = {
          ...io,
          args: [...wish.args],
          env: [...wish.env],
          user: wish.user,
          workingDir: wish.workingDir,
        }
        pod.saveAnd(eventRecord('/tasks/exec-added', TaskExecAddedSchema, { containerId: id, execId }))
        return {}
      }),

    pids: async ({ id }) => {
      const task = processes.task(id)
      const { pid } = task
      if (task.kind === 'sandbox') return { processes: [{ pid }] }
      const containers = await pod.guest().agent.listContainers()
      const found = containers.find(({ containerId }) => containerId === id)
      const inside = (name: string) => packAny(ProcessDetailsSchema, { execId: name })
      const execs = Object.entries(task.execs).filter(([, { status }]) => status === 'running')
      return {
        processes: [
          { pid, info: inside(`guest pid ${found?.guestPid ?? 0}`) },
          ...execs.map(([execId, record]) => ({ pid: record.pid, info: inside(execId) })),
        ],
      }
    },

    stats: async ({ id }) => {
      const task = processes.task(id)
      const none = { cpuUsageUs: 0n, cpuUserUs: 0n, cpuSystemUs: 0n, memoryBytes: 0n, memoryLimitBytes: 0n, pids: 0n }
      // The sandbox runs nothing: what the pod needs besides its containers is in the pod's own control group on the host.
      const counters = task.kind === 'sandbox' ? none : await pod.guest().agent.getStats(id)
      return { stats: encodeStats(counters, hostCgroupVersion()) }
    },

    resizePty: ({ id, execId, width, height }, context) =>
      answers.once(markOf(context), EmptySchema, async () => {
        const { record } = processes.get(id, execId)
        if (execId !== '' && record.status === 'stopped') {
          throw rpcStatus('failedPrecondition', `process ${execId} of task ${id} has ended`)
        }
        // As containerd's own shim: what has no terminal has no size to change, and what has ended none any more.
        if (!record.terminal || record.status === 'stopped') return {}
        if (execId !== '' && record.status === 'created') record.window = [width, height]
        else await pod.guest().agent.resize({ containerId: id, ...(execId === '' ? {} : { execId }) }, width, height)
        return {}
      }),

    closeIO: ({ id, execId, stdin }, context) =>
      answers.once(markOf(context), EmptySchema, async () => {
        const process = processes.get(id, execId)
        if (stdin) closeInput(process, await pod.relay)
        return {}
      }),

    connect: async ({ id }) => {
      const { pid } = processes.task(id)
      return { shimPid: (await pod.relay).pid, taskPid: pid, version: 'caisson' }
    },

    shutdown: async () => {
      // Asked for every container that goes; the last one counts.
      if (processes.tasks().length === 0) setImmediate(onEmpty)
      return {}
    },

    pause: ({ id }, context) => answers.once(markOf(context), EmptySchema, (again) => hold(pod, id, true, again)),

    resume: ({ id }, context) => answers.once(markOf(context), EmptySchema, (again) => hold(pod, id, false, again)),

    update: ({ id, resources }, context) =>
      answers.once(markOf(context), EmptySchema, async () => {
        const task = processes.task(id)
        const limits = parseLinuxResources(resources?.value ?? new Uint8Array())
        // The size of a VM is fixed when it starts: the sandbox's own limits are the host's control groups' business.
        if (task.kind === 'container') await pod.guest().agent.update(id, requestedLimits(limits))
        return {}
      }),

    checkpoint: async ({ id }) => {
      processes.task(id)
      throw noCheckpoints()
    },
  }
  return service
}

/** @param again a daemon before may have done it */
async function hold(pod: NodePod, id: string, paused: boolean, again: boolean): Promise<Record<string, never>> {
  const task = pod.processes.task(id)
  const from = paused ? 'running' : 'paused'
  const to = paused ? 'paused' : 'running'
  if (again && task.status === to) return {}
  if (task.kind === 'sandbox' || task.status !== from) {
    throw rpcStatus('failedPrecondition', `task ${id} is ${task.status}, not ${from}`)
  }
  await pod.guest().agent.pause(id, paused)
  task.status = to
  const event = { containerId: id }
  pod.saveAnd(
    paused
      ? eventRecord('/tasks/paused', TaskPausedSchema, event)
      : eventRecord('/tasks/resumed', TaskResumedSchema, event),
  )
  return {}
}

function isSilence(error: unknown): boolean {
  return error instanceof RpcError && error.code === 'ERR_RPC_TIMEOUT'
}

function aborted(signal: AbortSignal): Promise<never> {
  return new Promise((_resolve, reject) => {
    const stop = (): void => reject(rpcStatus('canceled', 'the caller is gone'))
    if (signal.aborted) stop()
    else signal.addEventListener('abort', stop, { once: true })
  })
}
