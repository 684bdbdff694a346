/**
 * MRTD and RTMRs of a TD that has not started: from firmware, kernel, initrd, command line and memory size. Each value
 * comes with the events it is made of, so that it can be compared with an event log line by line.
 *
 * Machine: QEMU q35, OVMF with TDX (`-bios`), `-kernel` with or without `-initrd`, no variable store, no secure boot, no
 * option ROMs. MRTD needs the firmware alone. RTMR1 and RTMR2 need the kernel; RTMR1 also the memory size when there is an
 * initrd. RTMR0 needs the memory size and QEMU's ACPI tables (they depend on CPUs, devices and QEMU's version): without
 * them it is not predicted, only those of its events that follow from the rest. RTMR3 stays zero until the guest extends it.
 */
import { createHash } from 'node:crypto'
import { concatBytes, toHex } from '#protocol/encoding'
import { authenticodeSha384 } from '../tpm/authenticode.ts'
import { loadOptions } from '../tpm/linux-boot.ts'
import { kernelWithInitrd } from './linux-boot.ts'
import { tdHob } from './td-hob.ts'
import type { Tdvf } from './tdvf.ts'

export interface TdArtefacts {
  readonly tdvf: Tdvf
  readonly boot?: TdDirectBoot
  /**
   * MiB, as QEMU's -m. Needed for RTMR0. RTMR1 with an initrd depends on it too, but is the same for 2048 (taken when it is
   * not given) and for everything from 2816 on.
   */
  readonly memoryMib?: number
  readonly acpi?: AcpiBlobs
}

export interface TdDirectBoot {
  readonly kernel: Uint8Array
  readonly initrd?: Uint8Array
  readonly cmdline: string
}

/** The files of QEMU's firmware configuration, as the firmware reads them. */
export interface AcpiBlobs {
  /** etc/table-loader */
  readonly loader: Uint8Array
  /** etc/acpi/rsdp */
  readonly rsdp: Uint8Array
  /** etc/acpi/tables */
  readonly tables: Uint8Array
}

export interface PredictedTdEvent {
  readonly rtmr: number
  /** As the specification names it: EV_SEPARATOR. */
  readonly type: string
  readonly description: string
  /** SHA-384, hex; undefined where it does not follow from what was given. */
  readonly digest: string | undefined
}

/**
 * What differs between builds of QEMU and OVMF. `kernel`: up to QEMU 9.x the firmware gets the file with its setup header
 * filled in; newer pairs read it unchanged. `separator`: the one that ends the boot manager's measurements went to RTMR0 in
 * older builds of OVMF, and goes to RTMR1 in newer ones.
 */
export interface FirmwareVariant {
  readonly kernel: 'patched' | 'unchanged'
  readonly separator: 'rtmr0' | 'rtmr1'
}

export const FIRMWARE_VARIANTS: readonly FirmwareVariant[] = [
  { kernel: 'patched', separator: 'rtmr1' },
  { kernel: 'unchanged', separator: 'rtmr1' },
  { kernel: 'patched', separator: 'rtmr0' },
  { kernel: 'unchanged', separator: 'rtmr0' },
]

export interface RtmrPrediction {
  readonly variant: FirmwareVariant
  /** Hex, RTMR0 to RTMR3; undefined where it does not follow from what was given. */
  readonly rtmrs: readonly (string | undefined)[]
  readonly events: readonly PredictedTdEvent[]
}

/** Throws what `tdHob`, `kernelWithInitrd`, `authenticodeSha384` and `loadOptions` throw. */
export function predictRtmrs(artefacts: TdArtefacts, variant: FirmwareVariant): RtmrPrediction {
  const events = [
    ...firmwareEvents(artefacts),
    ...(artefacts.boot === undefined ? [] : bootEvents(artefacts.boot, artefacts, variant)),
  ]
  const ends =
    artefacts.boot === undefined ? [undefined, undefined, undefined] : [0, 1, 2].map((rtmr) => replay(events, rtmr))
  return { variant, rtmrs: [...ends, '00'.repeat(48)], events }
}

/** Undefined when the digest of an event is unknown. */
function replay(events: readonly PredictedTdEvent[], rtmr: number): string | undefined {
  let value = new Uint8Array(48)
  for (const { rtmr: own, digest } of events) {
    if (own !== rtmr) continue
    if (digest === undefined) return undefined
    value = new Uint8Array(createHash('sha384').update(value).update(Buffer.from(digest, 'hex')).digest())
  }
  return toHex(value)
}

/** EFI_GLOBAL_VARIABLE and EFI_IMAGE_SECURITY_DATABASE_GUID, mixed-endian. */
const GLOBAL_VARIABLE = '61dfe48bca93d211aa0d00e098032b8c'
const SECURITY_DATABASE = 'cbb219d73a3d9645a3bcdad00e67656f'
const SECURE_BOOT: readonly (readonly [guid: string, name: string])[] = [
  [GLOBAL_VARIABLE, 'SecureBoot'],
  [GLOBAL_VARIABLE, 'PK'],
  [GLOBAL_VARIABLE, 'KEK'],
  [SECURITY_DATABASE, 'db'],
  [SECURITY_DATABASE, 'dbx'],
]
/** LOAD_OPTION_ACTIVE, hidden, an application; files of firmware volumes follow in the device path. */
const UI_APP_ATTRIBUTES = '09010000'
/** PlatformDxe's firmware volume 7cb8bdc9-f8eb-4f34-aaea-3ee4af6516a1 and UiApp 462caa21-7614-4503-836e-8ab6f4662331. */
const UI_APP_PATH = '04071400c9bdb87cebf8344faaea3ee4af6516a10406140021aa2c4614760345836e8ab6f46623317fff0400'

function firmwareEvents({ tdvf, memoryMib, acpi }: TdArtefacts): PredictedTdEvent[] {
  const cfv = tdvf.sections.find(({ type }) => type === 'CFV')
  const acpiEvent = (file: string, data: Uint8Array | undefined): PredictedTdEvent =>
    event(0, 'EV_PLATFORM_CONFIG_FLAGS', `ACPI DATA ${file}`, data)
  return [
    event(0, 'EV_EFI_HANDOFF_TABLES2', 'TD HOB', memoryMib === undefined ? undefined : tdHob(tdvf, memoryMib)),
    ...(cfv === undefined ? [] : [event(0, 'EV_EFI_PLATFORM_FIRMWARE_BLOB2', 'variable store (CFV)', cfv.data)]),
    ...SECURE_BOOT.map(([guid, name]) =>
      event(0, 'EV_EFI_VARIABLE_DRIVER_CONFIG', `variable ${JSON.stringify(name)} absent`, emptyVariable(guid, name)),
    ),
    event(0, 'EV_SEPARATOR', 'end of what firmware measures', new Uint8Array(4)),
    acpiEvent('etc/table-loader', acpi?.loader),
    acpiEvent('etc/acpi/rsdp', acpi?.rsdp),
    acpiEvent('etc/acpi/tables', acpi?.tables),
  ]
}

const USUAL_MEMORY_MIB = 2048

function bootEvents(
  { kernel, initrd, cmdline }: TdDirectBoot,
  { memoryMib = USUAL_MEMORY_MIB }: TdArtefacts,
  { kernel: form, separator }: FirmwareVariant,
): PredictedTdEvent[] {
  const initrdBytes = initrd?.length ?? 0
  const image = form === 'patched' ? kernelWithInitrd(kernel, initrdBytes, memoryMib) : kernel
  // OVMF tells the kernel by its command line that there is an initrd.
  const options = initrdBytes === 0 ? cmdline : `${cmdline} initrd=initrd`
  const option = concatBytes(
    Buffer.from(UI_APP_ATTRIBUTES, 'hex'),
    le16(44),
    utf16('UiApp\0'),
    Buffer.from(UI_APP_PATH, 'hex'),
  )
  return [
    {
      rtmr: 1,
      type: 'EV_EFI_BOOT_SERVICES_APPLICATION',
      description: `kernel image (Authenticode, ${form})`,
      digest: toHex(authenticodeSha384(image)),
    },
    event(0, 'EV_EFI_VARIABLE_BOOT', 'BootOrder: 0000', Uint8Array.of(0, 0)),
    event(0, 'EV_EFI_VARIABLE_BOOT', 'Boot0000: UiApp', option),
    action('Calling EFI Application from Boot Option'),
    event(separator === 'rtmr0' ? 0 : 1, 'EV_SEPARATOR', 'end of what the boot manager measures', new Uint8Array(4)),
    event(2, 'EV_EVENT_TAG', `load options ${JSON.stringify(options)}`, loadOptions(options)),
    ...(initrd === undefined || initrdBytes === 0 ? [] : [event(2, 'EV_EVENT_TAG', 'initrd', initrd)]),
    action('Exit Boot Services Invocation'),
    action('Exit Boot Services Returned with Success'),
  ]
}

function action(text: string): PredictedTdEvent {
  return event(1, 'EV_EFI_ACTION', text, new TextEncoder().encode(text))
}

function event(rtmr: number, type: string, description: string, data: Uint8Array | undefined): PredictedTdEvent {
  const digest = data === undefined ? undefined : createHash('sha384').update(data).digest('hex')
  return { rtmr, type, description, digest }
}

/** UEFI_VARIABLE_DATA of a variable without content. */
function emptyVariable(guid: string, name: string): Uint8Array {
  const lengths = new Uint8Array(16)
  new DataView(lengths.buffer).setUint32(0, name.length, true)
  return concatBytes(Buffer.from(guid, 'hex'), lengths, utf16(name))
}

function utf16(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text, 'utf16le'))
}

function le16(value: number): Uint8Array {
  return Uint8Array.of(value & 0xff, value >> 8)
}
