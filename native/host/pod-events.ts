/** What `caisson-pod` reports on its standard output, one JSON object per line (events.h has the same list). */
import { MalformedError } from '#protocol/errors'

export type PodEvent =
  /** Host programs may connect to the socket `vsock`. */
  | { readonly event: 'listening'; readonly vsock: string }
  | { readonly event: 'vm-started'; readonly pid: number }
  /** The guest's vsock driver is up; `resumed` when it goes on after a pause, with its streams. */
  | { readonly event: 'guest-connected'; readonly resumed: boolean }
  /** The guest started anew; its streams are gone. */
  | { readonly event: 'guest-reset' }
  /** The VMM (`front-end`, which ends the VM) or the guest (`ring`, which ends its streams) broke a rule. */
  | { readonly event: 'protocol-error'; readonly part: 'front-end' | 'ring'; readonly reason: string }
  /** Always the last: the VMM ended with a code, or by a signal's number. */
  | { readonly event: 'vm-exit'; readonly code: number }
  | { readonly event: 'vm-exit'; readonly signal: number }

/** One line without its newline. Throws MalformedError `ERR_POD_EVENT`. */
export function parsePodEvent(line: string): PodEvent {
  let value: unknown
  try {
    value = JSON.parse(line)
  } catch {
    throw unknownEvent(line)
  }
  if (typeof value !== 'object' || value === null) throw unknownEvent(line)
  const { event, vsock, pid, resumed, part, reason, code, signal } = value as Partial<Record<string, unknown>>
  switch (event) {
    case 'listening':
      if (typeof vsock === 'string') return { event, vsock }
      break
    case 'vm-started':
      if (typeof pid === 'number') return { event, pid }
      break
    case 'guest-connected':
      if (typeof resumed === 'boolean') return { event, resumed }
      break
    case 'guest-reset':
      return { event }
    case 'protocol-error':
      if ((part === 'front-end' || part === 'ring') && typeof reason === 'string') return { event, part, reason }
      break
    case 'vm-exit':
      if (typeof code === 'number') return { event, code }
      if (typeof signal === 'number') return { event, signal }
      break
  }
  throw unknownEvent(line)
}

function unknownEvent(line: string): MalformedError {
  return new MalformedError('ERR_POD_EVENT', `not an event of caisson-pod: ${JSON.stringify(line.slice(0, 200))}`, {
    hint: 'Build the native programs again: "node native/build.mjs".',
  })
}
