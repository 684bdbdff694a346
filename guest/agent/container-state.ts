/**
 * Life of a container, after the OCI runtime specification ("State"). Pure.
 *
 *   creating -> created -> running -> exited
 *
 * `created` may exit too (killed before it was started). States carry only the data they have.
 */
import { AgentError } from './agent-error.ts'

export interface Exit {
  /** 0..255, or 128 + signal. */
  readonly code: number
  readonly atMs: number
  readonly oomKilled: boolean
}

export type ContainerState =
  | { readonly status: 'creating' }
  | { readonly status: 'created'; readonly pid: number }
  | { readonly status: 'running'; readonly pid: number; readonly startedAtMs: number }
  | { readonly status: 'exited'; readonly pid: number; readonly startedAtMs: number; readonly exit: Exit }

export type ContainerEvent =
  | { readonly type: 'created'; readonly pid: number }
  | { readonly type: 'start'; readonly atMs: number }
  | { readonly type: 'exited'; readonly exit: Exit }

/** The state that `event` leads to. @throws AgentError ERR_CONTAINER_STATE */
export function nextState(state: ContainerState, event: ContainerEvent): ContainerState {
  switch (event.type) {
    case 'created':
      if (state.status === 'creating') return { status: 'created', pid: event.pid }
      break
    case 'start':
      if (state.status === 'created') return { status: 'running', pid: state.pid, startedAtMs: event.atMs }
      break
    case 'exited':
      if (state.status === 'created') return { status: 'exited', pid: state.pid, startedAtMs: 0, exit: event.exit }
      if (state.status === 'running') return { ...state, status: 'exited', exit: event.exit }
      break
    default:
      event satisfies never
  }
  throw wrongState(event.type, state.status)
}

export function wrongState(what: string, status: ContainerState['status']): AgentError {
  return new AgentError('failedPrecondition', 'ERR_CONTAINER_STATE', `${what}: the container is ${status}`)
}
