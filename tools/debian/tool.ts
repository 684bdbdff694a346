/**
 * A program of another Debian suite that runs on this machine out of the cache: its package and libraries are unpacked
 * together and started through their own dynamic loader, so the machine's libraries play no part.
 */
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { chmod, writeFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { promisify } from 'node:util'
import { cachedDirectory } from '../cache/entry.ts'
import { type DebianPin, type ObtainOptions, obtainPackages } from './packages.ts'

const run = promisify(execFile)

const LAUNCHER = (program: string) => `#!/bin/sh
root=$(dirname "$(readlink -f "$0")")/root
exec "$root/usr/lib64/ld-linux-x86-64.so.2" --inhibit-cache --library-path "$root/usr/lib/x86_64-linux-gnu" \\
  "$root/${program}" "$@"
`

/**
 * Path of an executable that runs `program` (a path inside the packages, such as `usr/bin/mkfs.erofs`). `pins` are the
 * packages of the program and of every library it needs, the C library included.
 */
export async function installTool(
  tool: { suite: string; program: string; pins: readonly DebianPin[] },
  options: ObtainOptions = {},
): Promise<string> {
  const packages = await obtainPackages(tool.suite, tool.pins, options)
  const key = createHash('sha256')
    .update(JSON.stringify([LAUNCHER(tool.program), ...packages.map((each) => each.sha256)]))
    .digest('hex')
  const name = basename(tool.program)
  const directory = await cachedDirectory(
    'tools',
    `${name}-${key.slice(0, 32)}`,
    async (folder) => {
      for (const { file } of packages) await run('dpkg-deb', ['--extract', file, join(folder, 'root')])
      await writeFile(join(folder, name), LAUNCHER(tool.program))
      await chmod(join(folder, name), 0o755)
    },
    options,
  )
  return join(directory, name)
}
