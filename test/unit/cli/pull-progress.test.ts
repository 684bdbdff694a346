import test from 'ava'
import { Output } from '#cli/output'
import { PullProgressView } from '#cli/pull-progress'
import type { PullProgress } from '#image/pull/progress'

const DIGEST = `sha256:${'a'.repeat(64)}` as const

class Recorder extends Output {
  readonly lines: string[] = []
  override progress(text: string): void {
    this.lines.push(text)
  }
}

function layer(number: number, fetchedBytes: number, state: 'fetching' | 'done'): PullProgress {
  return { type: 'layer', layer: number, digest: DIGEST, state, fetchedBytes, compressedBytes: 100e6, tarBytes: 0 }
}

function view(columns: number | undefined) {
  const out = new Recorder(false)
  const drawn: string[] = []
  let nowMs = 0
  const options = { out, columns, write: (text: string) => void drawn.push(text), nowMs: () => nowMs }
  const shown = new PullProgressView(options)
  shown.report({ type: 'resolved', manifestDigest: DIGEST, layers: 2, compressedBytes: 200e6 })
  const report = (progress: PullProgress, atMs: number): void => {
    nowMs = atMs
    shown.report(progress)
  }
  return { out, drawn, report, shown }
}

test('without a terminal a layer says its quarters and its end, with the total and the rate', (t) => {
  const { out, report } = view(undefined)
  for (const bytes of [1e6, 26e6, 30e6, 80e6]) report(layer(0, bytes, 'fetching'), 1000)
  report(layer(0, 100e6, 'done'), 2000)
  t.deepEqual(out.lines.slice(1), [
    'layer 1/2 sha256:aaaaaaaaaaaa: 25 % of 100.0 MB; 26.0 MB of 200.0 MB, 26.0 MB/s',
    'layer 1/2 sha256:aaaaaaaaaaaa: 75 % of 100.0 MB; 80.0 MB of 200.0 MB, 80.0 MB/s',
    'layer 1/2 sha256:aaaaaaaaaaaa: done, 100.0 MB; 100.0 MB of 200.0 MB, 50.0 MB/s',
  ])
})

test('on a terminal each running layer and the total have a bar that fits the width', (t) => {
  const { drawn, report, shown } = view(80)
  report(layer(0, 50e6, 'fetching'), 1000)
  report(layer(1, 10e6, 'fetching'), 2000)
  const last = (drawn.at(-1) ?? '').trimEnd().split('\n')
  t.is(last.length, 3)
  t.regex(last[0] ?? '', /^layer 1 {4}\[#{15}\.{15}\] 50\.0 MB\/100\.0 MB$/)
  t.regex(last[2] ?? '', /^total .* 0\/2 layers, 60\.0 MB of 200\.0 MB, 30\.0 MB\/s$/)
  for (const line of last) t.true(line.length < 80)
  shown.finish()
  t.is(drawn.at(-1), '\u001b[3A\u001b[J')
})

test('trouble is told with its code and when it is tried again', (t) => {
  const { out, report } = view(undefined)
  report({ type: 'trouble', layer: 1, code: 'ERR_HTTP_CUT', why: 'the connection ended', retryInMs: 1500 }, 10)
  t.is(out.lines.at(-1), 'layer 2: ERR_HTTP_CUT: the connection ended; again in 1.5 s')
})
