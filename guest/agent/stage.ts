/**
 * Life of a sandbox. Pure: this module decides which step is legal, `sandbox.ts` takes it.
 *
 *   ready -> network -> attesting -> attested
 *     \         \           \           \
 *      +---------+-> failed  +-----------+--> stopping
 *
 * There is no way back and no way round: before `attested` nothing of containers is served, `failed` serves nothing ever,
 * and `stopping` is reached from everywhere.
 */
import { AgentError } from './agent-error.ts'

export type Stage = 'ready' | 'network' | 'attesting' | 'attested' | 'failed' | 'stopping'
export type StageEvent = 'start' | 'network-up' | 'attested' | 'failed' | 'shutdown'

const NEXT: Readonly<Record<Stage, Partial<Record<StageEvent, Stage>>>> = {
  ready: { start: 'network', shutdown: 'stopping' },
  network: { 'network-up': 'attesting', failed: 'failed', shutdown: 'stopping' },
  attesting: { attested: 'attested', failed: 'failed', shutdown: 'stopping' },
  attested: { shutdown: 'stopping' },
  failed: { shutdown: 'stopping' },
  stopping: {},
}

/** The stage that `event` leads to. @throws AgentError ERR_AGENT_STAGE */
export function nextStage(stage: Stage, event: StageEvent): Stage {
  const next = NEXT[stage][event]
  if (next !== undefined) return next
  throw new AgentError('failedPrecondition', 'ERR_AGENT_STAGE', `${event} is not possible in stage ${stage}`)
}
