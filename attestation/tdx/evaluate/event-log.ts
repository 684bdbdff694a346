/**
 * The firmware's event log of a TD (ACPI table CCEL) against the run-time measurement registers. Measurement register 1 to
 * 4 of the log is RTMR0 to RTMR3 (UEFI 2.10, section 38.4.1); register 0, MRTD, has no events.
 */
import { createHash } from 'node:crypto'
import { toHex } from '#protocol/encoding'
import { nodeCrypto } from '#protocol/node/crypto'
import { inOneGo, STEP_ITEMS, type Steps } from '../../evidence/steps.ts'
import type { Finding } from '../../evidence/verdict.ts'
import type { EventLog } from '../../tpm/parse/event-log.ts'
import { extendPcr } from '../../tpm/verify/replay.ts'
import type { RuntimeLog } from '../parse/runtime-log.ts'
import type { TdReport } from '../parse/td-report.ts'

const RTMR_COUNT = 4
const REGISTER_BYTES = 48
/** Extended by programs long after the firmware wrote its log. */
const RUNTIME_RTMR = 3

/** Logs are replayed once, however often they are judged. */
const runtimeReplays = new WeakMap<RuntimeLog, Uint8Array>()
const replays = new WeakMap<EventLog, readonly Uint8Array[]>()

/** What RTMR3 holds after these lines, each of which is measured by its digest. */
export function replayRuntimeLog(log: RuntimeLog): Uint8Array {
  return runtimeReplays.get(log) ?? inOneGo(runtimeReplaySteps(log))
}

export function* runtimeReplaySteps(log: RuntimeLog): Steps<Uint8Array> {
  let pcr = log.initial
  for (const [index, line] of log.lines.entries()) {
    if (index % STEP_ITEMS === STEP_ITEMS - 1) yield
    const digest = new Uint8Array(createHash('sha384').update(line).digest())
    pcr = extendPcr(nodeCrypto, 'sha384', { pcr, digest })
  }
  runtimeReplays.set(log, pcr)
  return pcr
}

/** The lines must go on where the firmware's log ends (zeros without one), and lead to the register. */
export function runtimeLogFindings(runtimeLog: RuntimeLog, log: EventLog | undefined, { rtmrs }: TdReport): Finding[] {
  const before = log === undefined ? new Uint8Array(REGISTER_BYTES) : replayRtmrs(log)[RUNTIME_RTMR]
  if (toHex(runtimeLog.initial) !== toHex(before ?? new Uint8Array())) {
    const compared = { expected: toHex(before ?? new Uint8Array()), found: toHex(runtimeLog.initial) }
    return [contradiction(`the runtime log begins with another value of RTMR${RUNTIME_RTMR}`, compared)]
  }
  const compared = {
    expected: toHex(rtmrs[RUNTIME_RTMR] ?? new Uint8Array()),
    found: toHex(replayRuntimeLog(runtimeLog)),
  }
  if (compared.expected === compared.found) return []
  return [contradiction(`the runtime log does not replay to RTMR${RUNTIME_RTMR}`, compared)]
}

/** What RTMR0 to RTMR3 hold after these events. Events of other registers are left out. */
export function replayRtmrs(log: EventLog): readonly Uint8Array[] {
  return replays.get(log) ?? inOneGo(rtmrReplaySteps(log))
}

export function* rtmrReplaySteps(log: EventLog): Steps<readonly Uint8Array[]> {
  const rtmrs = Array.from({ length: RTMR_COUNT }, (): Uint8Array => new Uint8Array(REGISTER_BYTES))
  for (const [index, { pcr: register, digests }] of log.events.entries()) {
    if (index % STEP_ITEMS === STEP_ITEMS - 1) yield
    const value = rtmrs[register - 1]
    if (value === undefined) continue
    rtmrs[register - 1] = extendPcr(nodeCrypto, 'sha384', { pcr: value, digest: digests.sha384 ?? new Uint8Array() })
  }
  replays.set(log, rtmrs)
  return rtmrs
}

/** @param runtimeLogged another log accounts for RTMR3 */
export function eventLogFindings(log: EventLog, { rtmrs }: TdReport, runtimeLogged = false): Finding[] {
  if (!log.banks.includes('sha384')) {
    return [contradiction('the event log has no SHA-384 digests', { expected: 'sha384', found: log.banks.join(', ') })]
  }
  const stray = log.events.find(({ pcr }) => pcr < 1 || pcr > RTMR_COUNT)
  if (stray !== undefined) {
    const compared = { expected: 'registers 1 to 4', found: String(stray.pcr) }
    return [contradiction('the event log has events of a register that TDs do not extend', compared)]
  }
  return replayRtmrs(log).flatMap((replayed, index) => {
    const quoted = rtmrs[index] ?? new Uint8Array()
    const compared = { expected: toHex(quoted), found: toHex(replayed) }
    if (compared.expected === compared.found || (index === RUNTIME_RTMR && runtimeLogged)) return []
    const silent = !log.events.some(({ pcr }) => pcr === index + 1)
    if (index !== RUNTIME_RTMR || !silent) {
      return [contradiction(`the event log does not replay to RTMR${index}`, compared)]
    }
    const message = `RTMR${index} was extended at run time, and the event log does not say with what`
    const remedy = 'Compare RTMR3 with what the guest is known to extend it with.'
    return [{ severity: 'warning', code: 'event_log_incomplete', message, ...compared, remedy }]
  })
}

function contradiction(message: string, compared: { readonly expected: string; readonly found: string }): Finding {
  const remedy = 'The log was changed or is of another boot: get quote and log anew, from the same boot.'
  return { severity: 'contraindicated', code: 'event_log_mismatch', message, ...compared, remedy }
}
