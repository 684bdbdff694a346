/** What the quickstart showed, in one screen. */
import { print, type StageTime } from './stages.ts'

export interface Summary {
  readonly stages: readonly StageTime[]
  /** Stage inside `caisson run` → milliseconds since its start. */
  readonly timeline: Readonly<Record<string, number>>
  readonly image: { readonly reference: string; readonly digest: string }
  readonly pcrs: Readonly<Record<string, string>>
  readonly exitCode: number
  readonly state: string
}

/** What each PCR holds and who measured it. */
const MEASURED: Readonly<Record<string, string>> = {
  '0': 'firmware, measured by itself',
  '2': 'option ROMs (none), measured by the firmware',
  '4': 'kernel image, measured by the firmware',
  '7': 'secure boot state, measured by the firmware',
  '8': 'initdata, measured by init before anything parsed it',
  '9': 'kernel command line with the root hash, measured by the kernel’s EFI stub',
}

export function printSummary(summary: Summary): void {
  const total = summary.stages.reduce((sum, { ms }) => sum + ms, 0)
  print('\nSummary')
  for (const { title, ms } of summary.stages) print(`  ${(ms / 1000).toFixed(1).padStart(6)} s  ${title}`)
  print(`  ${(total / 1000).toFixed(1).padStart(6)} s  in all`)
  print('\nMeasured, predicted beforehand and compared by the verifier')
  for (const pcr of Object.keys(summary.pcrs)) print(`  PCR ${pcr.padEnd(2)}  ${MEASURED[pcr] ?? ''}`)
  print('  PCR 15  manifest, configuration and layers of the admitted image, measured by the agent')
  print('\nWhat ran')
  print(`  ${summary.image.reference}, exit code ${summary.exitCode}`)
  print('\nWhat the host could see')
  print('  initdata (public: policy with the image digest, addresses), the request, sizes and timing of traffic,')
  print(
    '  the log that the policy lets out, the output of the admitted exec; no layer, no secret, no reason of a refusal',
  )
  print('\nOn this platform (software TPM) the host can still read guest memory. A TEE closes that; this run shows the')
  print('same code path without one, and its tokens do not affirm `hardware`.')
  print(`\nKept: ${summary.state}`)
}
