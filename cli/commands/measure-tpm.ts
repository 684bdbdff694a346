import { encodeReferenceValues } from '#attestation/measure/reference-values'
import { measureTpmGuest } from '#attestation/measure/tpm/measure'
import { buildGuest } from '#guest/build/build'
import { vmSize } from '#host-shim/pod/pod-plan'
import { parseInitdata } from '#protocol/initdata'
import { buildProgress } from '../build-progress.ts'
import type { CommandSpec } from '../command.ts'
import { readUserFile, writeUserFile } from '../files.ts'

export const measureTpm: CommandSpec = {
  path: 'measure tpm',
  summary:
    'Predicts PCRs 0, 2, 4, 7, 8 and 9 of a guest from firmware, kernel, command line and initdata, before anything boots,\nand writes them as reference values for `caisson verifier reference-value register`.',
  operands: '',
  minOperands: 0,
  maxOperands: 0,
  options: {
    initdata: { type: 'string', placeholder: 'FILE', help: 'initdata of the guest' },
    firmware: {
      type: 'string',
      placeholder: 'FILE',
      help: 'firmware of the guest',
      default: '/usr/share/ovmf/OVMF.fd',
    },
    kernel: { type: 'string', placeholder: 'FILE', help: 'kernel (default: that of the guest image)' },
    cmdline: { type: 'string', placeholder: 'TEXT', help: 'kernel command line (default: that of the guest image)' },
    cpus: { type: 'string', placeholder: 'N', help: 'virtual CPUs, as in `caisson run`', default: '2' },
    memory: {
      type: 'string',
      placeholder: 'MIB',
      help: 'memory of the container, as in `caisson run`',
      default: '512',
    },
    output: { type: 'string', short: 'o', placeholder: 'FILE', help: 'where to write the reference values' },
  },
  examples: ['caisson measure tpm --initdata initdata.toml -o reference.json'],
  run: async (invocation) => {
    const initdata = readUserFile(invocation.required('initdata'), 'initdata')
    parseInitdata(initdata)
    const guest = await buildGuest({ onProgress: buildProgress(invocation.out) })
    const { vcpus, memoryMib } = vmSize([
      { cpus: invocation.integer('cpus', 1, 64), memoryMib: invocation.integer('memory', 64, 1024 * 1024) },
    ])
    const values = measureTpmGuest({
      firmware: readUserFile(invocation.required('firmware'), 'firmware'),
      kernel: readUserFile(invocation.string('kernel') ?? guest.kernelPath, 'kernel'),
      cmdline: invocation.string('cmdline') ?? guest.manifest.cmdline.tpm,
      initdata,
      vcpus,
      memoryMib,
    })
    const output = invocation.string('output')
    if (output !== undefined) writeUserFile(output, encodeReferenceValues(values))
    const lines = Object.entries(values.pcrs.sha256).map(([pcr, value]) => `PCR ${pcr.padEnd(2)}  ${value}`)
    const events = values.events.map(
      (event) => `  PCR ${String(event.pcr).padEnd(2)} ${event.type}: ${event.description}`,
    )
    invocation.out.result(
      { id: values.id, pcrs: values.pcrs.sha256, events: values.events, artefacts: values.artefacts },
      [values.id, ...lines, 'from', ...events].join('\n'),
    )
    return 0
  },
}
