import { type ChildProcess, execFile, execFileSync, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import test, { type ExecutionContext } from 'ava'
import { BATCH_BYTES } from '#image/pull/read-blob'
import { buildNative } from '../../../native/build.mjs'
import { type Fault, type FaultProxy, faultProxy, type ProxiedRequest } from './fixtures/fault-proxy.ts'
import { file, filler, pushLayers, THREE_LAYERS } from './fixtures/image.ts'
import { startRegistry } from './fixtures/registry.ts'
import { listTree } from './fixtures/tree.ts'
import { workspace } from './fixtures/workspace.ts'

const run = promisify(execFile)
const CAISSON = join(import.meta.dirname, '../../../cli/caisson.mjs')

test.before(async () => {
  await buildNative({ only: ['shared', 'caisson-index'] })
})

interface Scene {
  readonly folder: string
  readonly to: string
  readonly reference: string
  readonly proxy: FaultProxy
  readonly blob: { readonly digest: string; readonly size: number }
  readonly words: (more?: readonly string[]) => string[]
}

async function scene(
  t: ExecutionContext,
  layers = THREE_LAYERS,
  choose: (request: ProxiedRequest) => Fault | undefined = () => undefined,
): Promise<Scene> {
  const folder = await workspace(t)
  const registry = await startRegistry(t, join(folder, 'registry'))
  const pushed = await pushLayers(registry, folder, { layers })
  const [blob = { digest: '', size: 0 }] = pushed.layers
  const proxy = await faultProxy(t, registry, (request) =>
    request.path.endsWith(blob.digest) ? choose(request) : undefined,
  )
  const reference = pushed.reference.replace(`:${registry.port}/`, `:${proxy.port}/`)
  const to = join(folder, 'image')
  const words = (more: readonly string[] = []) => [
    CAISSON,
    ...['image', 'pull', '--to', to, '--ca', registry.caFile, '--add-host', 'registry.test:127.0.0.1'],
    ...more,
    reference,
  ]
  return { folder, to, reference, proxy, blob, words }
}

test('a folder holds manifest, configuration, layers, roots and index, and mounts as the image', async (t) => {
  const { folder, to, words } = await scene(t)
  const { stdout, stderr } = await run(process.execPath, words())
  t.regex(stdout, /^sha256:[0-9a-f]{64}\n3 layers in .*, signatures not judged/)
  t.regex(stderr, /layer 1\/3 sha256:.*: done, .* of /)
  t.deepEqual(readdirSync(to).sort(), ['config.json', 'image.json', 'layers', 'manifest.json'])
  const kinds = readdirSync(join(to, 'layers')).map((name) => name.replace(/^[0-9a-f]{64}/, ''))
  t.deepEqual([...new Set(kinds)].sort(), ['.entries', '.erofs', '.erofs.json', '.json', '.tar'])
  t.is(JSON.parse(readFileSync(join(to, 'config.json'), 'utf8')).config.Cmd[0], '/bin/true')

  const target = join(folder, 'mounted')
  mkdirSync(target)
  await run(process.execPath, [CAISSON, 'image', 'mount', to, target])
  t.teardown(() => void execFileSync('umount', [target]))
  t.deepEqual(
    listTree(target).map((line) => line.split(' ')[0]),
    ['.', 'big', 'etc', 'top'],
  )
  t.true(readFileSync(join(target, 'big')).equals(filler(3_000_000)))
})

/** The most memory that the process ever had, from the kernel's account, MiB. */
async function peakMib(words: readonly string[]): Promise<number> {
  const child = spawn(process.execPath, words, { stdio: 'ignore', env: { ...process.env, MALLOC_ARENA_MAX: '1' } })
  let peak = 0
  const timer = setInterval(() => {
    try {
      const [, kib = 0] = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${child.pid}/status`, 'latin1')) ?? []
      peak = Math.max(peak, Number(kib) / 1024)
    } catch {
      // It has ended.
    }
  }, 5)
  const [code] = await once(child, 'close')
  clearInterval(timer)
  if (code !== 0) throw new Error(`exit ${code}`)
  return peak
}

test('a pull takes the same memory for a layer of 8 MB and for one of 160 MB', async (t) => {
  const sized = (bytes: number): typeof THREE_LAYERS => [
    { compression: 'none', entries: [file('large', filler(bytes))] },
  ]
  const [small, large] = [await scene(t, sized(8_000_000)), await scene(t, sized(160_000_000))]
  // The first one compiles.
  await run(process.execPath, small.words())
  rmSync(small.to, { recursive: true })
  const [one, other] = [await peakMib(small.words()), await peakMib(large.words())]
  t.log(`${one.toFixed(0)} MiB and ${other.toFixed(0)} MiB`)
  t.true(one > 30 && other < one + 24)
})

test('a changed file of the folder is not mounted', async (t) => {
  const { folder, to, words } = await scene(t)
  await run(process.execPath, words())
  const layers = join(to, 'layers')
  const tar = readdirSync(layers).find((name) => name.endsWith('.tar') && statSync(join(layers, name)).size > 1_000_000)
  const bytes = readFileSync(join(layers, tar ?? ''))
  bytes[1_000_000] = (bytes[1_000_000] ?? 0) ^ 1
  writeFileSync(join(layers, tar ?? ''), bytes)
  const target = join(folder, 'mounted')
  mkdirSync(target)
  const error = await t.throwsAsync(run(process.execPath, [CAISSON, 'image', 'mount', to, target]))
  t.regex(error?.message ?? '', /ERR_VERITY_MISMATCH/)
})

test('with --json every step is an event, and the result is one value', async (t) => {
  const { words } = await scene(t)
  const { stdout, stderr } = await run(process.execPath, words(['--json']))
  t.is(JSON.parse(stdout).layers, 3)
  const events = stderr
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
  t.deepEqual(
    events.slice(0, 2).map(({ type }) => type),
    ['resolved', 'judged'],
  )
  t.is(events.filter(({ type, state }) => type === 'layer' && state === 'done').length, 3)
  t.true(
    events
      .filter(({ type }) => type === 'layer')
      .every(({ fetchedBytes, compressedBytes }) => fetchedBytes <= compressedBytes),
  )
})

const BIG = [{ compression: 'none', entries: [file('big', filler(40_000_000))] }] as const

async function killWhen(child: ChildProcess, proxy: FaultProxy, bytes: number): Promise<void> {
  const exited = once(child, 'exit')
  while (proxy.blobs.reduce((sum, blob) => sum + blob.bytes, 0) < bytes)
    await new Promise((tick) => setTimeout(tick, 5))
  child.kill('SIGKILL')
  await exited
}

test('a pull that was killed goes on with what it had verified, and leaves no drafts', async (t) => {
  // Each answer stalls in the middle, so the first pull cannot be done before it is killed.
  let killed = false
  const { to, words, proxy, blob } = await scene(t, BIG, () =>
    killed ? undefined : { kind: 'stall', after: 24_000_000 },
  )
  const child = spawn(process.execPath, words(['--connections', '1']), { stdio: 'ignore' })
  await killWhen(child, proxy, 24_000_000)
  killed = true
  const left = readdirSync(join(to, 'layers'))
  t.true(left.some((name) => name.endsWith('.part')))
  const kept = readFileSync(join(to, 'layers', left.find((name) => name.endsWith('.pieces')) ?? ''), 'utf8')
    .split('\n')
    .reduce((sum, line) => sum + Number(line.split(' ')[0]), 0)
  t.true(kept > 10_000_000, `${kept}`)
  const before = proxy.blobs.length
  await run(process.execPath, words())
  const again = proxy.blobs.slice(before).reduce((sum, { bytes }) => sum + bytes, 0)
  t.true(again <= blob.size - kept + 10_000, `${again} of ${blob.size} with ${kept} there`)
  t.deepEqual(
    readdirSync(join(to, 'layers')).filter((name) => name.startsWith('.') || name.includes('.part')),
    [],
  )
})

test('pieces that a disk changed are fetched again', async (t) => {
  let killed = false
  const { to, words, proxy, blob } = await scene(t, BIG, () =>
    killed ? undefined : { kind: 'stall', after: 24_000_000 },
  )
  await killWhen(spawn(process.execPath, words(['--connections', '1']), { stdio: 'ignore' }), proxy, 24_000_000)
  killed = true
  const part = join(to, 'layers', readdirSync(join(to, 'layers')).find((name) => name.endsWith('.part')) ?? '')
  const bytes = readFileSync(part)
  bytes[5_000_000] = (bytes[5_000_000] ?? 0) ^ 1
  writeFileSync(part, bytes)
  const before = proxy.blobs.length
  await t.notThrowsAsync(run(process.execPath, words(['--connections', '1'])))
  const after = proxy.blobs.slice(before).find(({ path }) => path.endsWith(blob.digest))
  // The piece that was changed, and what came after it.
  t.is(Number(/^bytes=(\d+)-/.exec(after?.range ?? '')?.[1]), Math.floor(5_000_000 / BATCH_BYTES) * BATCH_BYTES)
})

test('what was kept of a layer and is all of it, but wrong, is fetched anew', async (t) => {
  const { to, words, blob } = await scene(t, BIG)
  const wrong = Buffer.alloc(blob.size, 1)
  const pieces = Array.from({ length: Math.ceil(blob.size / BATCH_BYTES) }, (_, at) =>
    wrong.subarray(at * BATCH_BYTES, (at + 1) * BATCH_BYTES),
  )
  const part = join(to, 'layers', `${blob.digest.slice('sha256:'.length)}.part`)
  mkdirSync(join(to, 'layers'), { recursive: true })
  writeFileSync(part, wrong)
  const journal = pieces.map((piece) => `${piece.length} ${createHash('sha256').update(piece).digest('hex')}\n`)
  writeFileSync(`${part}.pieces`, journal.join(''))
  const { stdout } = await run(process.execPath, words())
  t.regex(stdout, /^sha256:[0-9a-f]{64}\n1 layers? in /)
  t.deepEqual(
    readdirSync(join(to, 'layers')).filter((name) => name.includes('.part')),
    [],
  )
})

test('two pulls into one folder do not meet', async (t) => {
  const { words, proxy, to } = await scene(t, BIG, () => ({ kind: 'stall', after: 4_000_000 }))
  const child = spawn(process.execPath, words(), { stdio: 'ignore' })
  while (proxy.blobs.length === 0) await new Promise((tick) => setTimeout(tick, 5))
  const error = await t.throwsAsync(run(process.execPath, words()))
  t.regex(error?.message ?? '', /ERR_PULL_BUSY/)
  const exited = once(child, 'exit')
  child.kill('SIGINT')
  await exited
  t.deepEqual(
    readdirSync(join(to, 'layers')).filter((name) => name.startsWith('.')),
    [],
  )
})
