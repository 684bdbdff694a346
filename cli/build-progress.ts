/** Progress of the guest build as lines: a new line per text and per ten percent. */
import type { OnProgress } from '#guest/build/progress'
import type { Output } from './output.ts'

export function buildProgress(out: Output): OnProgress {
  let last = ''
  return ({ step, text, percent, warning = false }) => {
    const tens = percent === undefined ? '' : ` ${Math.floor(percent / 10) * 10} %`
    const line = `${warning ? 'warning: ' : ''}${step}: ${text}${tens}`
    if (line !== last) out.progress(line, { step, warning })
    last = line
  }
}
