import { type MeasureOrder, predictMrtd } from '#attestation/measure/tdx/mrtd'
import {
  type AcpiBlobs,
  FIRMWARE_VARIANTS,
  predictRtmrs,
  type RtmrPrediction,
  type TdArtefacts,
  type TdDirectBoot,
} from '#attestation/measure/tdx/predict-rtmrs'
import { defaultTdxId } from '#attestation/measure/tdx/reference-values'
import { parseTdvf } from '#attestation/measure/tdx/tdvf'
import { toHex } from '#protocol/encoding'
import { UsageError } from '#protocol/errors'
import type { CommandSpec, Invocation } from '../command.ts'
import { EXIT_YES } from '../exit-code.ts'
import { readUserFile } from '../files.ts'

const MAX_MEMORY_MIB = 16 * 1024 * 1024

export const measureTdx: CommandSpec = {
  path: 'measure tdx',
  summary:
    'Predicts MRTD and RTMRs of a TD from its firmware, kernel, initrd and command line, before anything boots. What does not\nfollow from them is null: RTMR0 needs --memory and QEMU’s ACPI tables. Machine: QEMU q35, OVMF, no variable store.',
  operands: '',
  minOperands: 0,
  maxOperands: 0,
  options: {
    tdvf: { type: 'string', placeholder: 'FILE', help: 'firmware image with TDX metadata (OVMF, td-shim)' },
    kernel: { type: 'string', placeholder: 'FILE', help: 'kernel of a direct boot (default: none)' },
    initrd: { type: 'string', placeholder: 'FILE', help: 'initrd of a direct boot (default: none)' },
    append: { type: 'string', placeholder: 'TEXT', help: 'kernel command line (default: empty)' },
    memory: { type: 'string', placeholder: 'MIB', help: 'memory of the machine, as -m of QEMU' },
    'acpi-loader': { type: 'string', placeholder: 'FILE', help: 'etc/table-loader of QEMU’s firmware configuration' },
    'acpi-rsdp': { type: 'string', placeholder: 'FILE', help: 'etc/acpi/rsdp' },
    'acpi-tables': { type: 'string', placeholder: 'FILE', help: 'etc/acpi/tables' },
    id: { type: 'string', placeholder: 'NAME', help: 'name of the reference values (default: from the registers)' },
    order: {
      type: 'string',
      placeholder: 'page|section',
      help: 'how the host measures pages: Linux does so one by one, older hosts section by section',
      default: 'page',
    },
  },
  examples: [
    'caisson measure tdx --tdvf OVMF.inteltdx.fd',
    'caisson measure tdx --tdvf OVMF.fd --kernel vmlinuz --initrd initrd.img --append "console=hvc0" --memory 4096 --json',
  ],
  run: async (invocation) => {
    const tdvf = parseTdvf(readUserFile(invocation.required('tdvf'), 'firmware'))
    const boot = directBoot(invocation)
    const acpi = acpiBlobs(invocation)
    const artefacts: TdArtefacts = {
      tdvf,
      ...(boot === undefined ? {} : { boot }),
      ...(invocation.string('memory') === undefined
        ? {}
        : { memoryMib: invocation.integer('memory', 64, MAX_MEMORY_MIB) }),
      ...(acpi === undefined ? {} : { acpi }),
    }
    print(invocation, toHex(predictMrtd(tdvf, orderOf(invocation))), predictions(artefacts))
    return EXIT_YES
  },
}

function predictions(artefacts: TdArtefacts): RtmrPrediction[] {
  const variants = artefacts.boot === undefined ? FIRMWARE_VARIANTS.slice(0, 1) : FIRMWARE_VARIANTS
  return variants.map((variant) => predictRtmrs(artefacts, variant))
}

/** The first variant is that of today's usual builds; the others are listed beside it. */
function print(invocation: Invocation, mrtd: string, predicted: readonly RtmrPrediction[]): void {
  const [usual] = predicted
  const named = ({ rtmrs }: RtmrPrediction): Record<string, string | null> =>
    Object.fromEntries(rtmrs.map((value, index) => [`rtmr${index}`, value ?? null]))
  const registers = usual === undefined ? {} : named(usual)
  const cmdline = invocation.string('append')
  const result = {
    version: 1,
    platform: 'tdx',
    id: invocation.string('id') ?? defaultTdxId(mrtd, Object.values(registers)),
    ...(cmdline === undefined ? {} : { cmdline }),
    measurement: mrtd,
    mrtd,
    ...registers,
    variants: predicted.map((prediction) => ({ ...prediction.variant, ...named(prediction) })),
    events: (usual?.events ?? []).map(({ digest, ...event }) => ({ ...event, digest: digest ?? null })),
  }
  const lines = Object.entries(registers).map(
    ([name, value]) => `${name.toUpperCase()}  ${value ?? 'does not follow from what was given'}`,
  )
  const events = (usual?.events ?? []).map(({ rtmr, type, description }) => `  RTMR${rtmr} ${type}: ${description}`)
  invocation.out.result(result, [`MRTD   ${mrtd}`, ...lines, 'from', ...events].join('\n'))
}

function directBoot(invocation: Invocation): TdDirectBoot | undefined {
  const kernel = invocation.string('kernel')
  const initrd = invocation.string('initrd')
  const cmdline = invocation.string('append')
  if (kernel !== undefined) {
    return {
      kernel: readUserFile(kernel, 'kernel'),
      ...(initrd === undefined ? {} : { initrd: readUserFile(initrd, 'initrd') }),
      cmdline: cmdline ?? '',
    }
  }
  if (initrd === undefined && cmdline === undefined) return undefined
  throw usage('--initrd and --append are measured with --kernel')
}

function acpiBlobs(invocation: Invocation): AcpiBlobs | undefined {
  const [loader, rsdp, tables] = ['acpi-loader', 'acpi-rsdp', 'acpi-tables'].map((name) => invocation.string(name))
  if (loader === undefined && rsdp === undefined && tables === undefined) return undefined
  if (loader === undefined || rsdp === undefined || tables === undefined) {
    throw usage('--acpi-loader, --acpi-rsdp and --acpi-tables belong together')
  }
  return {
    loader: readUserFile(loader, 'table loader'),
    rsdp: readUserFile(rsdp, 'RSDP'),
    tables: readUserFile(tables, 'ACPI tables'),
  }
}

function orderOf(invocation: Invocation): MeasureOrder {
  const order = invocation.required('order')
  if (order === 'page' || order === 'section') return order
  throw usage(`--order is ${JSON.stringify(order)}, expected page or section`)
}

function usage(problem: string): UsageError {
  return new UsageError('ERR_USAGE', `caisson measure tdx: ${problem}`, { hint: 'See `caisson measure tdx --help`.' })
}
