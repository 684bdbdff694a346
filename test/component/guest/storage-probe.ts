/** Runs in a mount namespace of its own (`unshare --mount`), so that nothing it mounts is ever seen outside. */
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { nodeFiles } from '#guest/platform/node/files'
import { nodeStorage } from '#guest/platform/node/storage'

const folder = process.argv[2] ?? ''
const storage = nodeStorage(nodeFiles)
const told: Record<string, unknown> = {}

const target = join(folder, 'tmp')
await mkdir(target)
await storage.mount({ source: 'tmpfs', target, type: 'tmpfs', flags: ['nosuid', 'nodev'], data: 'size=65536' })
await writeFile(join(target, 'file'), 'inside')
told.options = (await readFile('/proc/self/mounts', 'utf8')).split('\n').find((line) => line.includes(target))
await storage.unmount(target)
told.after = await nodeFiles.list(target)

const image = join(folder, 'disk')
await writeFile(image, Buffer.alloc(1 << 20, 'caisson!'))
const loop = await storage.attachLoop(image, { readOnly: true })
told.size = await storage.deviceSize(loop)
told.head = (await nodeFiles.read(loop, 1 << 20)).subarray(0, 8)
told.head = Buffer.from(told.head as Uint8Array).toString()
await storage.detachLoop(loop)
told.missing = await storage.mount({ source: 'x', target: '/no/such', type: 'tmpfs', flags: [], data: '' }).then(
  () => 'mounted',
  (error: unknown) => (error instanceof Error ? error.message : ''),
)
process.stdout.write(JSON.stringify(told))
