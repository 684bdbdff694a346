/** Product lines of SEV-SNP processors: each has its own root key and its own layout of TCB versions. */

/** Named as in AMD's certificates; Bergamo and Siena are of the Genoa line. */
export type ProductLine = 'Milan' | 'Genoa' | 'Turin'

export interface Cpuid {
  /** Base and extended family together, as are the models. */
  readonly family: number
  readonly model: number
  readonly stepping: number
}

interface ModelRange {
  readonly family: number
  readonly first: number
  readonly last: number
  readonly product: ProductLine
}

/** AMD 57230 (VCEK certificates), section 2. */
const MODELS: readonly ModelRange[] = [
  { family: 0x19, first: 0x00, last: 0x0f, product: 'Milan' },
  { family: 0x19, first: 0x10, last: 0x1f, product: 'Genoa' },
  { family: 0x19, first: 0xa0, last: 0xaf, product: 'Genoa' },
  { family: 0x1a, first: 0x00, last: 0x11, product: 'Turin' },
]

const LINES: Readonly<Record<string, ProductLine>> = {
  Milan: 'Milan',
  Genoa: 'Genoa',
  Bergamo: 'Genoa',
  Siena: 'Genoa',
  Turin: 'Turin',
}

export function productOfCpuid({ family, model }: Cpuid): ProductLine | undefined {
  return MODELS.find((range) => range.family === family && model >= range.first && model <= range.last)?.product
}

/** @param name as certificates of endorsement keys have it: a line, sometimes with a stepping ("Milan-B0") */
export function productOfName(name: string): ProductLine | undefined {
  const [, line = ''] = /^([A-Za-z]+)(?:-[A-Z]\d)?$/.exec(name) ?? []
  return Object.hasOwn(LINES, line) ? LINES[line] : undefined
}
