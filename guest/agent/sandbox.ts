/**
 * The sandbox: network, attestation, the policy and everything that follows from it, in the order of `stage.ts`. Until
 * `attested` there is no `Attested` value, so nothing of containers can even be asked for.
 */
import type { Attester } from '#attestation/client/attester'
import type { PolicyEngine } from '#policies/engine'
import { EventKind, type StartSandboxRequest } from '#protocol/gen/agent_pb'
import type { Platform } from '../platform/platform.ts'
import { AgentError } from './agent-error.ts'
import type { Containers } from './containers.ts'
import type { EventLog } from './events.ts'
import type { ImageTools } from './image-source.ts'
import type { PodVolumes } from './pod-volumes.ts'
import type { ReasonLog, Refusals, Refused } from './reasons.ts'
import { parseSandboxRequest, type SandboxRequest } from './requests.ts'
import { writeSandboxFiles } from './sandbox-files.ts'
import { nextStage, type Stage, type StageEvent } from './stage.ts'

/** What exists once the verifier has said yes. */
export interface Attested {
  readonly policy: PolicyEngine
  readonly containers: Containers
  readonly volumes: PodVolumes
}

/** Verified facts and the way to more of them; without a TPM there is neither. */
export type Verifier = Pick<Attester, 'attest' | 'getResource' | 'getCertificate' | 'token' | 'evidence' | 'tell'>

export interface SandboxOptions {
  readonly platform: Platform
  readonly events: EventLog
  readonly refusals: Refusals
  readonly reasons: ReasonLog
  /** Loaded when needed: the agent answers before it needs them. */
  readonly imageTools: () => Promise<ImageTools>
  readonly createVerifier: (input: {
    readonly platform: Platform
    readonly url: string
    readonly caPem: string
    readonly hosts: Readonly<Record<string, string>>
  }) => Promise<Verifier>
}

export class Sandbox {
  readonly #options: SandboxOptions
  #stage: Stage = 'ready'
  #refused: Refused | undefined
  #attested: Attested | undefined

  constructor(options: SandboxOptions) {
    this.#options = options
  }

  get stage(): Stage {
    return this.#stage
  }

  /** Why it failed, as far as the host may know. */
  get refused(): Refused | undefined {
    return this.#refused
  }

  /** @throws AgentError ERR_AGENT_STAGE before attestation, after a failure and while stopping */
  attested(): Attested {
    if (this.#stage === 'attested' && this.#attested !== undefined) return this.#attested
    throw new AgentError('failedPrecondition', 'ERR_AGENT_STAGE', `not possible in stage ${this.#stage}`)
  }

  /** Once per guest. A failure is final: what was half-configured is not configured again. */
  async start(message: StartSandboxRequest): Promise<void> {
    // A malformed request changes nothing: it may be sent again.
    const request = parseSandboxRequest(message)
    this.#step('start')
    const { events, platform } = this.#options
    try {
      events.append({ kind: EventKind.STAGE_NETWORK })
      await this.#network(request)
      this.#step('network-up')
      events.append({ kind: EventKind.STAGE_ATTESTING })
      const attested = await this.#bringUp(request)
      this.#step('attested')
      this.#attested = attested
      events.append({ kind: EventKind.STAGE_ATTESTED })
      platform.consoleCode('agent-attested')
    } catch (error) {
      if (this.stage !== 'stopping') await this.#fail(error)
      throw error
    }
  }

  /** From here on nothing is served. Answers with the containers to stop, if any. */
  stop(): Containers | undefined {
    this.#step('shutdown')
    return this.#attested?.containers
  }

  /** Loaded now and not before: parsers, registry client and attestation are most of the agent's code. */
  async #bringUp(request: SandboxRequest): Promise<Attested> {
    const { bringUp } = await import('./bring-up.ts')
    return bringUp(this.#options, request)
  }

  #step(event: StageEvent): void {
    this.#stage = nextStage(this.#stage, event)
  }

  async #fail(error: unknown): Promise<void> {
    const { events, platform, refusals } = this.#options
    this.#step('failed')
    const refused = refusals.record(error, 'StartSandbox')
    this.#refused = refused
    const { code, correlationId } = refused
    const kind = refused.denied ? EventKind.REFUSED : EventKind.FAILED
    const sealedReason = await refusals.sealed(refused)
    events.append({ kind, errorCode: code, correlationId, sealedReason })
    platform.consoleCode('agent-failed')
  }

  async #network(request: SandboxRequest): Promise<void> {
    const { network, files } = this.#options.platform
    await writeSandboxFiles(files, request)
    await network.setHostname(request.hostname)
    await network.loopbackUp()
    for (const config of request.interfaces) await network.configure(config)
  }
}
