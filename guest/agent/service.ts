/** The RPC service: one function per method of agent.proto, each a few lines. Errors become a code and an id here. */

import type { GenService, GenServiceMethods } from '@bufbuild/protobuf/codegenv2'
import {
  type Agent,
  ContainerState as ContainerStateCode,
  EventKind,
  type OpenStreamRequest,
  Stage as StageCode,
  StreamKind,
} from '#protocol/gen/agent_pb'
import type { ServiceImpl } from '#protocol/ttrpc/server'
import type { ByteStream, Platform } from '../platform/platform.ts'
import { AgentError, malformedRequest } from './agent-error.ts'
import { readStats } from './cgroup-stats.ts'
import type { Container } from './container.ts'
import { noSuchStream } from './container-process.ts'
import { joinStreams } from './copy.ts'
import type { EventLog } from './events.ts'
import { PORT_PATIENCE_MS, PORT_RETRY_MS, SHUTDOWN_GRACE_MS, SHUTDOWN_KILL_MS } from './limits.ts'
import type { ReasonLog, Refusals } from './reasons.ts'
import { parseExecId, parseId, parsePort, parseSignal, parseWindow } from './requests.ts'
import type { Sandbox } from './sandbox.ts'
import type { Stage } from './stage.ts'
import type { StreamHandler, TicketOffice } from './tickets.ts'

export interface ServiceOptions {
  readonly platform: Platform
  readonly sandbox: Sandbox
  readonly events: EventLog
  readonly refusals: Refusals
  readonly reasons: ReasonLog
  readonly tickets: TicketOffice
  readonly version: string
  /** Called when everything has been stopped and the answer is on its way. */
  readonly onShutdown: () => void
}

const STAGES: Readonly<Record<Stage, StageCode>> = {
  ready: StageCode.READY,
  network: StageCode.NETWORK,
  attesting: StageCode.ATTESTING,
  attested: StageCode.ATTESTED,
  failed: StageCode.FAILED,
  stopping: StageCode.STOPPING,
}

export function agentService(options: ServiceOptions): AgentService {
  const { platform, sandbox, events, refusals, reasons, tickets } = options
  /** Judged as one: what is thrown inside becomes a refusal that names `what`. */
  const guarded = async <T>(what: string, work: () => Promise<T> | T): Promise<T> => {
    try {
      return await work()
    } catch (error) {
      throw refusals.toRpc(error, what)
    }
  }
  const container = (id: string): Container => sandbox.attested().containers.get(parseId(id, 'container_id'))

  return {
    getStatus: async () => {
      const { anonymousBytes, residentBytes } = await platform.memory()
      const { refused } = sandbox
      return {
        stage: STAGES[sandbox.stage],
        errorCode: refused?.code ?? '',
        correlationId: refused?.correlationId ?? '',
        agentVersion: options.version,
        agentAnonymousBytes: BigInt(anonymousBytes),
        agentResidentBytes: BigInt(residentBytes),
        sealedReason: refused === undefined ? new Uint8Array() : await refusals.sealed(refused),
      }
    },

    getReasons: ({ after }) =>
      guarded('GetReasons', async () => ({ reasons: [...(await reasons.sealedAfter(after))] })),

    async *watchEvents({ after }, { signal }) {
      try {
        yield* events.watch(after, signal)
      } catch (error) {
        throw refusals.toRpc(error, 'WatchEvents')
      }
    },

    startSandbox: (request) =>
      guarded('StartSandbox', async () => {
        await sandbox.start(request)
        return {}
      }),

    createContainer: (request) =>
      guarded(`CreateContainer ${request.containerId}`, async () => {
        try {
          const created = await sandbox.attested().containers.create(request)
          return { imageDigest: created.parts.imageDigest }
        } catch (error) {
          // A request that never became a container is answered and is no event of one.
          if (error instanceof AgentError) throw error
          const refused = refusals.record(error, `CreateContainer ${request.containerId}`)
          const { code, correlationId } = refused
          const sealedReason = await refusals.sealed(refused)
          const kind = refused.denied ? EventKind.REFUSED : EventKind.FAILED
          const containerId = request.containerId.slice(0, 128)
          events.append({ kind, containerId, errorCode: code, correlationId, sealedReason })
          throw error
        }
      }),

    startContainer: ({ containerId }) =>
      guarded(`StartContainer ${containerId}`, async () => {
        const started = await sandbox.attested().containers.start(parseId(containerId, 'container_id'))
        return { guestPid: started.process('').process.pid }
      }),

    execProcess: (request) =>
      guarded(`ExecProcess ${request.containerId}`, async () => {
        const process = await sandbox.attested().containers.exec(request)
        return { guestPid: process.pid }
      }),

    signalProcess: ({ containerId, execId, signal, all }) =>
      guarded(`SignalProcess ${containerId}`, async () => {
        const { containers } = sandbox.attested()
        const id = parseId(containerId, 'container_id')
        await containers.signal(id, parseExecId(execId), { signal: parseSignal(signal), all })
        return {}
      }),

    waitProcess: ({ containerId, execId }, { signal }) =>
      guarded(`WaitProcess ${containerId}`, async () => {
        const waited = container(containerId)
        const { exited } = waited.process(parseExecId(execId))
        const { code, atMs, oomKilled } = await Promise.race([exited, whenAborted(signal)])
        const terminationMessage = execId === '' ? await waited.terminationMessage() : new Uint8Array()
        return { exitCode: code, exitedAtMs: BigInt(atMs), oomKilled, terminationMessage }
      }),

    resizeTerminal: ({ containerId, execId, columns, rows }) =>
      guarded(`ResizeTerminal ${containerId}`, () => {
        const window = parseWindow(columns, rows)
        const { process } = container(containerId).process(parseExecId(execId))
        if (!process.hasTerminal) throw noSuchStream('terminal')
        process.resize(window.columns, window.rows)
        return {}
      }),

    deleteContainer: ({ containerId, execId }) =>
      guarded(`DeleteContainer ${containerId}`, async () => {
        const { containers } = sandbox.attested()
        const id = parseId(containerId, 'container_id')
        const { code, atMs } = execId === '' ? await containers.delete(id) : container(id).forget(parseExecId(execId))
        return { exitCode: code, exitedAtMs: BigInt(atMs) }
      }),

    listContainers: () =>
      guarded('ListContainers', () => ({ containers: sandbox.attested().containers.list().map(describe) })),

    getStats: ({ containerId }) =>
      guarded(`GetStats ${containerId}`, () => readStats(platform.files, container(containerId).parts.cgroupPath)),

    updateContainer: ({ containerId, resources }) =>
      guarded(`UpdateContainer ${containerId}`, async () => {
        await sandbox.attested().containers.update(parseId(containerId, 'container_id'), resources)
        return {}
      }),

    pauseContainer: ({ containerId, paused }) =>
      guarded(`PauseContainer ${containerId}`, async () => {
        await sandbox.attested().containers.pause(parseId(containerId, 'container_id'), paused)
        return {}
      }),

    setVolume: (messages) =>
      guarded('SetVolume', async () => {
        await sandbox.attested().volumes.deliver(messages)
        return {}
      }),

    openStream: (request) =>
      guarded(`OpenStream ${request.containerId}`, () => ({ ticket: tickets.issue(streamHandler(request, options)) })),

    shutdown: () =>
      guarded('Shutdown', async () => {
        const containers = sandbox.stop()
        platform.consoleCode('agent-stopping')
        await containers?.stopAll(SHUTDOWN_GRACE_MS, SHUTDOWN_KILL_MS)
        options.onShutdown()
        return {}
      }),
  }
}

type MethodsOf<Service> = Service extends GenService<infer Methods extends GenServiceMethods> ? Methods : never

/** One function per method of the generated description. */
export type AgentService = ServiceImpl<MethodsOf<typeof Agent>>

/** What a ticket will open, judged now. */
function streamHandler(request: OpenStreamRequest, { sandbox, platform }: ServiceOptions): StreamHandler {
  const { policy, containers } = sandbox.attested()
  if (request.kind === StreamKind.PORT) {
    const port = parsePort(request.port)
    policy.admitPort(port)
    return async (stream) => joinStreams(stream, await connectWhenOpen(platform, port))
  }
  const id = parseId(request.containerId, 'container_id')
  const { process } = containers.get(id).process(parseExecId(request.execId))
  const isExec = request.execId !== ''
  switch (request.kind) {
    case StreamKind.STDIN:
      policy.admitStdin(id)
      if (process.hasTerminal) throw noSuchStream('stdin')
      return (stream) => process.takeInput(stream)
    case StreamKind.STDOUT:
    case StreamKind.STDERR: {
      policy.admitOutput(id, isExec)
      if (process.hasTerminal) throw noSuchStream('stdout or stderr')
      const source = request.kind === StreamKind.STDOUT ? 'stdout' : 'stderr'
      return (stream) => process.sendOutput(stream, [source], true)
    }
    case StreamKind.TERMINAL:
      policy.admitOutput(id, isExec)
      if (!process.hasTerminal) throw noSuchStream('terminal')
      return (stream) => process.joinTerminal(stream)
    case StreamKind.LOGS:
      policy.admitOutput(id, isExec)
      return (stream) => process.sendOutput(stream, ['stdout', 'stderr'], request.follow)
    case StreamKind.UNSPECIFIED:
      break
  }
  // A number that this version does not know comes here too.
  throw malformedRequest('kind', `is ${request.kind}`)
}

function describe(container: Container) {
  const { parts, state } = container
  return {
    containerId: parts.id,
    name: parts.name,
    imageDigest: parts.imageDigest,
    state: {
      creating: ContainerStateCode.UNSPECIFIED,
      created: ContainerStateCode.CREATED,
      running: ContainerStateCode.RUNNING,
      exited: ContainerStateCode.EXITED,
    }[state.status],
    guestPid: 'pid' in state ? state.pid : 0,
    exitCode: state.status === 'exited' ? state.exit.code : 0,
    startedAtMs: 'startedAtMs' in state ? BigInt(state.startedAtMs) : 0n,
    ports: [...parts.ports],
  }
}

/** A server that was started a moment ago may not listen yet: its clients wait, as they would for a slow answer. */
async function connectWhenOpen({ network, clock }: Platform, port: number): Promise<ByteStream> {
  const deadlineMs = clock.monotonicMs() + PORT_PATIENCE_MS
  while (true) {
    try {
      return await network.connectLocal(port)
    } catch (error) {
      if (clock.monotonicMs() >= deadlineMs) throw error
      await clock.sleep(PORT_RETRY_MS)
    }
  }
}

/** Nobody waits for the answer any more. */
function whenAborted(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    signal.addEventListener('abort', () => reject(malformedRequest('call', 'was abandoned')), { once: true })
  })
}
