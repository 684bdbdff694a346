/** Writes guest/lock.json anew from what the suite serves, npm has installed and the kernel's source package is today. */
import { execFile } from 'node:child_process'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { fileSha256 } from '#tools/cache/entry'
import { currentPins } from '#tools/debian/packages'
import { BUILD_PACKAGES, DEBIAN_FILES } from '../rootfs/debian-files.ts'
import { bundleAgent, bundleSignatureEngines } from './bundle.ts'
import { formatGuestLock, type GuestLock, parseGuestLock } from './lock.ts'
import { installedPackage, installedVersion } from './npm-packages.ts'

const run = promisify(execFile)

/** Answers with one line per pin that changed. `root` is the repository. */
export async function relock(root: string, lockFile: string): Promise<readonly string[]> {
  const old = parseGuestLock(await readFile(lockFile, 'utf8'))
  const bundles = [await bundleAgent(join(root, 'guest/main.ts'), root), await bundleSignatureEngines(root)]
  const packages = [...new Set(bundles.flatMap((bundle) => bundle.packages))].sort()
  const lock: GuestLock = {
    debian: {
      ...old.debian,
      packages: (await currentPins(old.debian.suite, [...Object.keys(DEBIAN_FILES), ...BUILD_PACKAGES])).map(pinOf),
    },
    node: {
      ...old.node,
      version: await installedVersion(root, old.node.name),
      sha256: await fileSha256(join(root, 'node_modules', old.node.name, old.node.file)),
    },
    bundled: await Promise.all(packages.map((name) => installedPackage(root, name))),
    kernel: {
      ...old.kernel,
      version: (await run('dpkg-query', ['--show', '--showformat=${Version}', old.kernel.package])).stdout.trim(),
      sha256: await fileSha256(join('/usr/src', old.kernel.file)),
    },
  }
  await writeFile(lockFile, formatGuestLock(lock))
  return changes(old, lock)
}

/** Only the members a pin has: the source may carry more. */
const pinOf = ({ name, version, sha256 }: { name: string; version: string; sha256: string }) => ({
  name,
  version,
  sha256,
})

function changes(old: GuestLock, now: GuestLock): readonly string[] {
  const flat = (lock: GuestLock) => {
    const kernel = { ...lock.kernel, name: lock.kernel.package }
    return new Map([...lock.debian.packages, ...lock.bundled, lock.node, kernel].map((pin) => [pin.name, pin]))
  }
  const [before, after] = [flat(old), flat(now)]
  return [...new Set([...before.keys(), ...after.keys()])]
    .filter((name) => before.get(name)?.sha256 !== after.get(name)?.sha256)
    .map((name) => `${name}: ${before.get(name)?.version ?? 'absent'} → ${after.get(name)?.version ?? 'absent'}`)
}
