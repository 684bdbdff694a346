/**
 * The state of UEFI Secure Boot as PCR 7 recorded it (PC Client Platform Firmware Profile 1.06, section 3.3.4.8). The order
 * is part of the record: firmware measures the variables before the separator, and what comes behind it may be anybody's.
 */
import { equalBytes } from '#protocol/encoding'
import { MalformedError } from '#protocol/errors'
import type { TpmEvent } from '../parse/event-log.ts'
import { eventTypeName } from '../parse/event-types.ts'
import { parseUefiVariable, type UefiVariable } from '../parse/uefi-events.ts'
import { guidText, parseSignatureLists } from '../parse/uefi-structures.ts'

export type SecureBootState =
  | { readonly known: true; readonly enabled: boolean; readonly dmaProtection: boolean; readonly debugger: boolean }
  | { readonly known: false; readonly why: string }

const GLOBAL_VARIABLE = '8be4df61-93ca-11d2-aa0d-00e098032b8c'
const IMAGE_SECURITY = 'd719b2cb-3d3a-4596-a3bc-dad00e67656f'
const OWNERS: Readonly<Record<string, string>> = {
  SecureBoot: GLOBAL_VARIABLE,
  PK: GLOBAL_VARIABLE,
  KEK: GLOBAL_VARIABLE,
  db: IMAGE_SECURITY,
  dbx: IMAGE_SECURITY,
}
const DATABASES: readonly string[] = ['PK', 'KEK', 'db']
const DEBUG_MODE = 'UEFI Debug Mode'
const DMA_DISABLED = 'DMA Protection Disabled'
const ACTIONS: readonly string[] = [DEBUG_MODE, DMA_DISABLED]
const ZEROS = new Uint8Array(4)

/** @param events of PCR 7, in order, whose data was measured wherever its type says so */
export function secureBootState(events: readonly TpmEvent[]): SecureBootState {
  try {
    return readState(events)
  } catch (error) {
    if (error instanceof MalformedError) return unknown(error.message)
    throw error
  }
}

function readState(events: readonly TpmEvent[]): SecureBootState {
  const variables = new Map<string, UefiVariable>()
  let separators = 0
  let authorities = 0
  let debuggerPresent = false
  let dmaProtection = true
  for (const { type, data } of events) {
    switch (eventTypeName(type)) {
      case 'EV_SEPARATOR':
        if (!equalBytes(data, ZEROS)) return unknown('the separator of PCR 7 stands for an error')
        separators++
        break
      case 'EV_EFI_VARIABLE_DRIVER_CONFIG': {
        const variable = parseUefiVariable(data)
        if (separators > 0) return unknown(`variable ${variable.name} was measured behind the separator`)
        if (variables.has(variable.name)) return unknown(`variable ${variable.name} was measured twice`)
        const owner = OWNERS[variable.name]
        if (owner === undefined || owner === guidText(variable.vendorGuid)) variables.set(variable.name, variable)
        break
      }
      case 'EV_EFI_VARIABLE_AUTHORITY':
        authorities++
        break
      case 'EV_EFI_ACTION':
        if (!ACTIONS.includes(textOf(data)))
          return unknown(`PCR 7 has an action ${JSON.stringify(textOf(data).slice(0, 80))}`)
        debuggerPresent ||= textOf(data) === DEBUG_MODE
        dmaProtection &&= textOf(data) !== DMA_DISABLED
        break
      case 'EV_EFI_SPDM_DEVICE_POLICY':
      case 'EV_EFI_SPDM_DEVICE_AUTHORITY':
        break
      default:
        return unknown(`PCR 7 has an event ${eventTypeName(type)}`)
    }
  }
  if (separators !== 1) return unknown(`PCR 7 has ${separators} separators`)
  const flag = variables.get('SecureBoot')?.value
  if (flag === undefined) return unknown('the variable SecureBoot was not measured')
  // UEFI 2.10 section 3.3: one byte. Firmware without the variable measures it as empty.
  if (flag.length > 1 || (flag[0] ?? 0) > 1) return unknown(`the variable SecureBoot has ${flag.length} bytes`)
  const enabled = flag[0] === 1
  if (!enabled) return { known: true, enabled, dmaProtection, debugger: debuggerPresent }
  if (authorities === 0) return unknown('Secure Boot is enabled, but nothing was verified by it')
  for (const name of DATABASES) {
    if (parseSignatureLists(variables.get(name)?.value ?? new Uint8Array()).length === 0) {
      return unknown(`Secure Boot is enabled, but ${name} is empty`)
    }
  }
  return { known: true, enabled, dmaProtection, debugger: debuggerPresent }
}

function unknown(why: string): SecureBootState {
  return { known: false, why }
}

function textOf(data: Uint8Array): string {
  return Buffer.from(data).toString('latin1').replace(/\0$/, '')
}
