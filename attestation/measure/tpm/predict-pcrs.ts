/**
 * PCRs of a boot that has not happened: from firmware, kernel, command line and initdata alone. Each value comes with the
 * events it is made of, so that a mismatch can be explained.
 *
 * Machine: q35, `-bios` OVMF without a variable store, `-kernel` without an initrd, no option ROMs, S3 off.
 */
import { createHash } from 'node:crypto'
import { concatBytes, toHex } from '#protocol/encoding'
import { eventTypeName } from '../../tpm/parse/event-types.ts'
import { authenticodeSha256 } from './authenticode.ts'
import { kernelAsLoaded, loadOptions } from './linux-boot.ts'
import { type FirmwareMachine, measuredFirmware } from './ovmf.ts'

/** PCRs that follow from the artefacts; 1, 3, 5 and 6 depend on what the host attaches and how it boots. */
export const PREDICTED_PCRS: readonly number[] = [0, 2, 4, 7, 8, 9]

export interface BootArtefacts extends FirmwareMachine {
  readonly firmware: Uint8Array
  readonly kernel: Uint8Array
  readonly cmdline: string
  /** Initdata TOML, as the guest finds it on its disk. */
  readonly initdata: Uint8Array
}

export interface PredictedEvent {
  readonly pcr: number
  /** As the specification names it: EV_SEPARATOR. */
  readonly type: string
  readonly description: string
  /** SHA-256, hex. */
  readonly digest: string
}

export interface PcrPrediction {
  /** Hex, by PCR number. */
  readonly sha256: Readonly<Record<number, string>>
  readonly events: readonly PredictedEvent[]
}

const TYPE = {
  separator: 0x4,
  tag: 0x6,
  crtmVersion: 0x8,
  driverConfig: 0x80000001,
  application: 0x80000003,
  action: 0x80000007,
  firmwareBlob: 0x80000008,
} as const

/** EFI_GLOBAL_VARIABLE and EFI_IMAGE_SECURITY_DATABASE_GUID, mixed-endian. */
const GLOBAL_VARIABLE = '61dfe48bca93d211aa0d00e098032b8c'
const SECURITY_DATABASE = 'cbb219d73a3d9645a3bcdad00e67656f'

/** Throws what `measuredFirmware`, `authenticodeSha256` and `loadOptions` throw. */
export function predictPcrs(artefacts: BootArtefacts): PcrPrediction {
  const events = [
    ...firmwareEvents(artefacts),
    separator(2),
    ...kernelEvents(artefacts.kernel),
    ...secureBootEvents(),
    event(8, 'initdata', { description: 'initdata, measured by PID 1', data: artefacts.initdata }),
    event(9, TYPE.tag, {
      description: `kernel command line ${JSON.stringify(artefacts.cmdline)}`,
      data: loadOptions(artefacts.cmdline),
    }),
  ]
  return { sha256: Object.fromEntries(PREDICTED_PCRS.map((pcr) => [pcr, replay(events, pcr)])), events }
}

function firmwareEvents(artefacts: BootArtefacts): PredictedEvent[] {
  const firmware = measuredFirmware(artefacts.firmware, artefacts)
  const cpus = `${artefacts.vcpus} CPU${artefacts.vcpus === 1 ? '' : 's'}`
  return [
    event(0, TYPE.crtmVersion, {
      description: `firmware version ${JSON.stringify(firmware.version)}`,
      data: utf16(`${firmware.version}\0`),
    }),
    event(0, TYPE.firmwareBlob, {
      description: `PEI volume of ${firmware.build}, with ${cpus}`,
      data: firmware.peiVolume,
    }),
    event(0, TYPE.firmwareBlob, { description: `DXE volume of ${firmware.build}`, data: firmware.dxeVolume }),
    separator(0),
  ]
}

function kernelEvents(kernel: Uint8Array): PredictedEvent[] {
  return [
    {
      pcr: 4,
      type: eventTypeName(TYPE.application),
      description: 'kernel image (Authenticode, header as QEMU fills it in)',
      digest: toHex(authenticodeSha256(kernelAsLoaded(kernel))),
    },
    // Reported once the boot manager runs, which is after -kernel was loaded.
    event(4, TYPE.action, {
      description: 'boot manager starts',
      data: new TextEncoder().encode('Calling EFI Application from Boot Option'),
    }),
    separator(4),
  ]
}

/** Without a variable store there are no keys and secure boot is off. */
function secureBootEvents(): PredictedEvent[] {
  const variables: readonly [guid: string, name: string, value: Uint8Array][] = [
    [GLOBAL_VARIABLE, 'SecureBoot', Uint8Array.of(0)],
    [GLOBAL_VARIABLE, 'PK', new Uint8Array()],
    [GLOBAL_VARIABLE, 'KEK', new Uint8Array()],
    [SECURITY_DATABASE, 'db', new Uint8Array()],
    [SECURITY_DATABASE, 'dbx', new Uint8Array()],
  ]
  return [
    ...variables.map(([guid, name, value]) =>
      event(7, TYPE.driverConfig, {
        description: `variable ${JSON.stringify(name)} ${value.length === 0 ? 'absent' : 'off'}`,
        data: concatBytes(Buffer.from(guid, 'hex'), u64le(name.length), u64le(value.length), utf16(name), value),
      }),
    ),
    separator(7),
  ]
}

function separator(pcr: number): PredictedEvent {
  return event(pcr, TYPE.separator, { description: 'end of what firmware measures', data: new Uint8Array(4) })
}

function event(pcr: number, type: number | string, what: { description: string; data: Uint8Array }): PredictedEvent {
  return {
    pcr,
    type: typeof type === 'number' ? eventTypeName(type) : type,
    description: what.description,
    digest: toHex(sha256(what.data)),
  }
}

/** PCR value of these events, hex. */
export function replay(events: readonly { readonly pcr: number; readonly digest: string }[], pcr: number): string {
  const value = events
    .filter((candidate) => candidate.pcr === pcr)
    .reduce((old, { digest }) => sha256(old, Buffer.from(digest, 'hex')), new Uint8Array(32))
  return toHex(value)
}

function sha256(...parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const hash = createHash('sha256')
  for (const part of parts) hash.update(part)
  return new Uint8Array(hash.digest())
}

function utf16(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text, 'utf16le'))
}

function u64le(value: number): Uint8Array {
  const bytes = new Uint8Array(8)
  new DataView(bytes.buffer).setBigUint64(0, BigInt(value), true)
  return bytes
}
