import test from 'ava'
import { type ContainerEvent, type ContainerState, nextState } from '#guest/agent/container-state'
import { nextStage, type Stage, type StageEvent } from '#guest/agent/stage'

const STAGES: readonly Stage[] = ['ready', 'network', 'attesting', 'attested', 'failed', 'stopping']
const EVENTS: readonly StageEvent[] = ['start', 'network-up', 'attested', 'failed', 'shutdown']
const LEGAL: Readonly<Record<string, Stage>> = {
  'ready start': 'network',
  'ready shutdown': 'stopping',
  'network network-up': 'attesting',
  'network failed': 'failed',
  'network shutdown': 'stopping',
  'attesting attested': 'attested',
  'attesting failed': 'failed',
  'attesting shutdown': 'stopping',
  'attested shutdown': 'stopping',
  'failed shutdown': 'stopping',
}

for (const stage of STAGES) {
  for (const event of EVENTS) {
    const next = LEGAL[`${stage} ${event}`]
    test(`a sandbox in stage ${stage} ${next === undefined ? 'refuses' : `becomes ${next} by`} ${event}`, (t) => {
      if (next === undefined) t.throws(() => nextStage(stage, event), { code: 'ERR_AGENT_STAGE' })
      else t.is(nextStage(stage, event), next)
    })
  }
}

const exit = { code: 3, atMs: 9, oomKilled: false }
const STATES: readonly ContainerState[] = [
  { status: 'creating' },
  { status: 'created', pid: 4 },
  { status: 'running', pid: 4, startedAtMs: 5 },
  { status: 'exited', pid: 4, startedAtMs: 5, exit },
]
const STEPS: readonly ContainerEvent[] = [
  { type: 'created', pid: 4 },
  { type: 'start', atMs: 5 },
  { type: 'exited', exit },
]
const REACHED: Readonly<Record<string, ContainerState>> = {
  'creating created': { status: 'created', pid: 4 },
  'created start': { status: 'running', pid: 4, startedAtMs: 5 },
  'created exited': { status: 'exited', pid: 4, startedAtMs: 0, exit },
  'running exited': { status: 'exited', pid: 4, startedAtMs: 5, exit },
}

for (const state of STATES) {
  for (const event of STEPS) {
    const next = REACHED[`${state.status} ${event.type}`]
    test(`a container that is ${state.status} ${next === undefined ? 'refuses' : `becomes ${next.status} by`} ${event.type}`, (t) => {
      if (next === undefined) t.throws(() => nextState(state, event), { code: 'ERR_CONTAINER_STATE' })
      else t.deepEqual(nextState(state, event), next)
    })
  }
}
