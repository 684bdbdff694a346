/** Runs with a limit on the size of files, so that a write past it is cut short, as on a disk that is full. */
import { nodeFiles } from '#guest/platform/node/files'
import { nodeStorage } from '#guest/platform/node/storage'
import { CaissonError } from '#protocol/errors'

const [path = '', size = ''] = process.argv.slice(2)
const told = await nodeStorage(nodeFiles)
  .writeDevice(path, 0, new Uint8Array(Number(size)).fill(1))
  .then(
    () => 'written',
    (error: unknown) => (error instanceof CaissonError ? `${error.code}: ${error.message}` : String(error)),
  )
process.stdout.write(told)
