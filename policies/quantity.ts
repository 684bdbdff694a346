/** Kubernetes' quantities ("512Mi", "1500m"), as far as memory, CPU and counts need them. */

const FACTORS: Readonly<Record<string, number>> = {
  '': 1,
  k: 1e3,
  M: 1e6,
  G: 1e9,
  T: 1e12,
  Ki: 2 ** 10,
  Mi: 2 ** 20,
  Gi: 2 ** 30,
  Ti: 2 ** 40,
}

/** Bytes, rounded up; undefined when the text is no quantity of bytes. */
export function bytesOf(text: string): number | undefined {
  const match = /^(\d{1,15}(?:\.\d{1,9})?)(k|M|G|T|Ki|Mi|Gi|Ti)?$/.exec(text)
  const bytes = match === null ? Number.NaN : Math.ceil(Number(match[1]) * (FACTORS[match[2] ?? ''] ?? Number.NaN))
  return Number.isSafeInteger(bytes) ? bytes : undefined
}

/** Thousandths of a CPU, rounded up; undefined when the text is no quantity of CPU. */
export function milliCpusOf(text: string): number | undefined {
  const match = /^(\d{1,9}(?:\.\d{1,9})?)(m)?$/.exec(text)
  const milli = match === null ? Number.NaN : Math.ceil(Number(match[1]) * (match[2] === 'm' ? 1 : 1000))
  return Number.isSafeInteger(milli) ? milli : undefined
}
