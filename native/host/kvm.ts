/**
 * Can KVM run guests here? Decided from facts a separate program finds by running one, since `/dev/kvm` may open on
 * hosts where ordinary kernels hang, and since `KVM_RUN` itself may hang.
 */
import { spawn } from 'node:child_process'
import { errorText, UnavailableError } from '#protocol/errors'
import { CAISSON_KVM_PROBE } from './programs.ts'

export interface KvmProbe {
  /** True only if the CPU shows hardware virtualisation and a guest ran. */
  readonly usable: boolean
  /** One sentence without a full stop, for people. */
  readonly reason: string
}

/** What the probe program reports; `errno` and `step` belong to the step that failed. */
export interface KvmFindings {
  readonly cpu: 'vmx' | 'svm' | 'none'
  readonly device: 'open' | 'absent' | 'denied' | 'failed'
  readonly guest: 'ran' | 'not-tried' | 'failed'
  readonly errno: number
  readonly step: string
}

const DEFAULT_TIMEOUT_MS = 5000
const MAX_OUTPUT_BYTES = 4096

/**
 * Never hangs: after `timeoutMs` (default 5000) the verdict is unusable, whether the program can be killed or not.
 * Throws UnavailableError `ERR_KVM_PROBE` when the program is missing or does not answer in its form.
 */
export async function probeKvm(
  options: { readonly timeoutMs?: number; readonly program?: string } = {},
): Promise<KvmProbe> {
  const { timeoutMs = DEFAULT_TIMEOUT_MS, program = CAISSON_KVM_PROBE } = options
  const output = await outputWithin(program, timeoutMs)
  if (output === undefined) {
    return { usable: false, reason: `a guest of five instructions did not end within ${timeoutMs} ms` }
  }
  return judgeKvm(parseKvmFindings(output))
}

/** The verdict on what was found. */
export function judgeKvm({ cpu, device, guest, errno, step }: KvmFindings): KvmProbe {
  if (device === 'absent') return { usable: false, reason: 'there is no /dev/kvm' }
  if (device === 'denied') return { usable: false, reason: '/dev/kvm may not be opened by this user (group kvm)' }
  if (device === 'failed') return { usable: false, reason: `/dev/kvm does not open: errno ${errno}` }
  if (guest !== 'ran')
    return { usable: false, reason: `/dev/kvm opens, but a tiny guest fails at ${step}: errno ${errno}` }
  if (cpu === 'none') {
    return {
      usable: false,
      reason:
        '/dev/kvm opens and runs a tiny guest, but the CPU shows neither VMX nor SVM: on such paravirtual hosts ordinary kernels hang',
    }
  }
  return { usable: true, reason: `the CPU offers ${cpu.toUpperCase()} and a tiny guest ran` }
}

/** Text of the probe program to findings. Throws UnavailableError `ERR_KVM_PROBE` for anything else. */
export function parseKvmFindings(text: string): KvmFindings {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (cause) {
    throw notAnswered(`it printed ${JSON.stringify(text)}`, cause)
  }
  const findings = value as Partial<Record<keyof KvmFindings, unknown>> | null
  if (typeof findings !== 'object' || findings === null) throw notAnswered(`it printed ${JSON.stringify(text)}`)
  const { cpu, device, guest, errno, step } = findings
  if (
    (cpu === 'vmx' || cpu === 'svm' || cpu === 'none') &&
    (device === 'open' || device === 'absent' || device === 'denied' || device === 'failed') &&
    (guest === 'ran' || guest === 'not-tried' || guest === 'failed') &&
    typeof errno === 'number' &&
    typeof step === 'string'
  ) {
    return { cpu, device, guest, errno, step }
  }
  throw notAnswered(`it printed ${JSON.stringify(text)}`)
}

/** Undefined when the time is over. A process stuck inside the kernel cannot be killed, so it is not waited for. */
function outputWithin(program: string, timeoutMs: number): Promise<string | undefined> {
  const { promise, resolve, reject } = Promise.withResolvers<string | undefined>()
  const child = spawn(program, { stdio: ['ignore', 'pipe', 'ignore'] })
  let text = ''
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
    text = (text + chunk).slice(0, MAX_OUTPUT_BYTES)
  })
  const timer = setTimeout(() => {
    child.kill('SIGKILL')
    child.stdout.destroy()
    child.unref()
    resolve(undefined)
  }, timeoutMs)
  child.on('error', (cause) => {
    clearTimeout(timer)
    reject(notAnswered(errorText(cause), cause))
  })
  child.on('close', () => {
    clearTimeout(timer)
    resolve(text)
  })
  return promise
}

function notAnswered(what: string, cause?: unknown): UnavailableError {
  return new UnavailableError('ERR_KVM_PROBE', `the KVM probe gave no findings: ${what}`, {
    hint: 'Run "node native/build.mjs --only caisson-kvm-probe", or choose --accel tcg.',
    cause,
  })
}
