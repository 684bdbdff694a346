/**
 * The pull beside other engines: the same image from the same registry over TLS, interleaved, everything that is pulled
 * and unpacked on one file system. Run when nothing else runs: the registry and all contenders share the processors.
 */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { loadavg, tmpdir } from 'node:os'
import { join } from 'node:path'
import { median, spread } from '../statistics.ts'
import { type Contender, caisson, containerd, skopeoUmoci } from './contenders.ts'
import { type BenchImage, benchImage, type Format, type Shape } from './images.ts'
import { benchGuestPull, type GuestPullFigures } from './in-guest.ts'
import type { Cost } from './measure.ts'
import { benchRegistry, push } from './registry.ts'

export interface PullFigures {
  readonly place: string
  readonly shape: Shape
  readonly format: Format
  readonly contender: string
  readonly wallS: number
  readonly wallSpread: string
  readonly cpuS: number
  readonly peakMib: number
  /** Uncompressed bytes per second of wall time. */
  readonly mbPerS: number
  readonly rounds: number
  /** Of the machine, one minute, when the last round ended: above 2 it was not quiet. */
  readonly load: number
}

const SHAPES: readonly Shape[] = ['big', 'layers', 'files']
const FORMATS: readonly Format[] = ['gzip', 'zstd']

export interface PullBenchOptions {
  readonly rounds: number
  readonly say: (line: string) => void
  readonly shapes?: readonly Shape[]
  readonly formats?: readonly Format[]
  /** "memory" or "disk". */
  readonly places?: readonly string[]
  /** Also inside a guest. Default true. */
  readonly guest?: boolean
  /** Where images are kept between runs. */
  readonly cache?: string
}

export interface PullResults {
  readonly beside: readonly PullFigures[]
  readonly inGuest: readonly GuestPullFigures[]
}

export async function benchPull(options: PullBenchOptions): Promise<PullResults> {
  const { rounds, say, shapes = SHAPES, formats = FORMATS, places = ['memory', 'disk'], guest = true } = options
  const folder = mkdtempSync(join(tmpdir(), 'caisson-bench-pull-'))
  const cache = options.cache ?? join(tmpdir(), 'caisson-bench-images')
  mkdirSync(cache, { recursive: true })
  const figures: PullFigures[] = []
  const inGuest: GuestPullFigures[] = []
  try {
    await using registry = await benchRegistry(folder)
    for (const place of places) {
      const target = place === 'memory' ? mkdtempSync('/dev/shm/caisson-bench-') : join(folder, 'target')
      mkdirSync(target, { recursive: true })
      try {
        await using daemon = await containerd(registry, target)
        const contenders = [caisson(registry, target), daemon, skopeoUmoci(registry, target)]
        for (const shape of shapes) {
          for (const format of formats) {
            const image = benchImage(cache, shape, format)
            const name = `bench/${shape}:${format}`
            push(registry, image.layout, name)
            figures.push(...(await compare(image, name, contenders, { place, rounds, say })))
          }
        }
      } finally {
        rmSync(target, { recursive: true, force: true })
      }
    }
    for (const format of guest ? formats : []) {
      const one = await benchGuestPull(registry, benchImage(cache, 'layers', format))
      const { wallS, mbPerS, anonymousMib, residentMib, accelerator } = one
      const memory = `agent ${anonymousMib.toFixed(0)} MiB anonymous, ${residentMib.toFixed(0)} MiB resident`
      say(`guest (${accelerator}) layers ${format}: ${wallS.toFixed(2)} s  ${mbPerS.toFixed(1)} MB/s  ${memory}`)
      inGuest.push(one)
    }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
  return { beside: figures, inGuest }
}

async function compare(
  image: BenchImage,
  name: string,
  contenders: readonly Contender[],
  { place, rounds, say }: { place: string; rounds: number; say: (line: string) => void },
): Promise<readonly PullFigures[]> {
  const costs = new Map<string, Cost[]>()
  // Programs, their caches and the image are warm for all alike.
  for (const contender of contenders) await contender.pull(image, name)
  for (let round = 0; round < rounds; round++) {
    for (const contender of contenders) {
      const cost = await contender.pull(image, name)
      if (cost !== undefined) costs.set(contender.name, [...(costs.get(contender.name) ?? []), cost])
    }
  }
  const { shape, format, tarBytes } = image
  return [...costs].map(([contender, all]) => {
    const walls = all.map(({ wallS }) => wallS)
    const figures: PullFigures = {
      place,
      shape,
      format,
      contender,
      wallS: median(walls),
      wallSpread: spread(walls),
      cpuS: median(all.map(({ cpuS }) => cpuS)),
      peakMib: Math.max(...all.map(({ peakMib }) => peakMib)),
      mbPerS: tarBytes / 1e6 / median(walls),
      rounds,
      load: loadavg()[0] ?? Number.NaN,
    }
    say(line(figures))
    return figures
  })
}

function line({
  place,
  shape,
  format,
  contender,
  wallS,
  wallSpread,
  cpuS,
  peakMib,
  mbPerS,
  load,
}: PullFigures): string {
  const name = `${place} ${shape} ${format}`.padEnd(20)
  const wall = `${wallS.toFixed(2)} s (${wallSpread})`.padEnd(22)
  const cost = `${cpuS.toFixed(2)} CPU s  ${peakMib.toFixed(0).padStart(4)} MiB  ${mbPerS.toFixed(0).padStart(4)} MB/s`
  return `${name} ${contender.padEnd(15)} ${wall} ${cost}  load ${load.toFixed(1)}`
}
