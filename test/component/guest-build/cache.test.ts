import { readdir, readFile, utimes, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { cachedDirectory } from '../../../tools/cache/entry.ts'
import { cacheDirectory } from '../../../tools/cache/location.ts'
import { scratchFolder } from './machine.ts'

/** An empty cache of the test's own. */
async function privateCache(t: ExecutionContext): Promise<void> {
  process.env.XDG_CACHE_HOME = await scratchFolder(t)
}

/** Makes an entry with one file and counts how often it had to. */
function counted() {
  let made = 0
  const make = async (directory: string) => {
    made += 1
    await writeFile(join(directory, 'file'), 'content')
  }
  return { make, times: () => made }
}

test.serial('an entry is made once and found afterwards', async (t) => {
  await privateCache(t)
  const { make, times } = counted()
  const first = await cachedDirectory('kind', 'key', make)
  t.is(await cachedDirectory('kind', 'key', make), first)
  t.is(times(), 1)
  t.is(first, join(cacheDirectory(), 'kind/key'))
})

test.serial('runs that want the same entry at once make it once', async (t) => {
  await privateCache(t)
  const { make, times } = counted()
  const found = await Promise.all(Array.from({ length: 4 }, () => cachedDirectory('kind', 'key', make)))
  t.is(new Set(found).size, 1)
  t.is(times(), 1)
})

test.serial('an entry with a changed, missing or additional file is made again, with a warning', async (t) => {
  await privateCache(t)
  const { make, times } = counted()
  const warnings: string[] = []
  const directory = await cachedDirectory('kind', 'key', make)
  await writeFile(join(directory, 'file'), 'tampered')
  await cachedDirectory('kind', 'key', make, { onWarning: (text) => warnings.push(text) })
  t.is(await readFile(join(directory, 'file'), 'utf8'), 'content')
  await writeFile(join(directory, 'other'), '')
  await cachedDirectory('kind', 'key', make, { onWarning: (text) => warnings.push(text) })
  t.is(times(), 3)
  t.is(warnings.length, 2)
})

test.serial('an entry whose making failed is not there, and the next run starts clean', async (t) => {
  await privateCache(t)
  await t.throwsAsync(
    cachedDirectory('kind', 'key', async (directory) => {
      await writeFile(join(directory, 'half'), '')
      throw new Error('interrupted')
    }),
  )
  const directory = await cachedDirectory('kind', 'key', counted().make)
  t.deepEqual((await readdir(directory)).sort(), ['SHA256.json', 'file'])
})

test.serial('only as many entries are kept as asked for, those used last', async (t) => {
  await privateCache(t)
  const { make } = counted()
  const use = (key: string) => cachedDirectory('kind', key, make, { keep: 2 })
  await utimes(await use('first'), 1, 1)
  await utimes(await use('second'), 2, 2)
  await use('first')
  const third = await use('third')
  const left = (await readdir(dirname(third))).filter((name) => !name.startsWith('.'))
  t.deepEqual(left.sort(), ['first', 'third'])
})

test.serial('a relative cache directory is ignored, as the specification asks', (t) => {
  t.is(cacheDirectory({ XDG_CACHE_HOME: 'relative' }), cacheDirectory({}))
})
