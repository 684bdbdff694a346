/** All events of a log in words. A log is described once, however often it is judged. */
import { inOneGo, STEP_ITEMS, type Steps } from '../../evidence/steps.ts'
import { describeEvent } from './describe-event.ts'
import type { EventLog } from './event-log.ts'

const described = new WeakMap<EventLog, readonly string[]>()

/** One line for each event, register first: "4 EV_EFI_ACTION: "Calling EFI Application…"". */
export function describeLog(log: EventLog): readonly string[] {
  return described.get(log) ?? inOneGo(describeSteps(log))
}

export function* describeSteps(log: EventLog): Steps<readonly string[]> {
  const lines: string[] = []
  for (const { pcr, type, data } of log.events) {
    if (lines.length % STEP_ITEMS === STEP_ITEMS - 1) yield
    lines.push(`${pcr} ${describeEvent(type, data)}`)
  }
  described.set(log, lines)
  return lines
}
