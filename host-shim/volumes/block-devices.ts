/**
 * Block devices that the kubelet has prepared for a pod (`volumeDevices`), in
 * `<root>/pods/<uid>/volumeDevices/<plugin>/<name>`. They are there before the sandbox is made, so its VM starts with them:
 * confidential guests get no devices later.
 */
import { readdir, realpath, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { UsageError } from '#protocol/errors'

export interface BlockDisk {
  /** Under which the guest finds it. */
  readonly serial: `block-${number}`
  /** Of the device on the host. */
  readonly path: string
  /** "major:minor", as bundles name devices. */
  readonly number: string
}

const MAX_DISKS = 5

/** @throws UsageError ERR_POD_UNSUPPORTED for more than a machine has room for */
export async function podBlockDevices(kubeletRoot: string, podUid: string): Promise<readonly BlockDisk[]> {
  if (!/^[A-Za-z0-9][A-Za-z0-9-]{0,63}$/.test(podUid)) return []
  const root = join(kubeletRoot, 'pods', podUid, 'volumeDevices')
  const numbers = new Map<string, string>()
  for (const plugin of (await namesIn(root)).toSorted()) {
    for (const name of (await namesIn(join(root, plugin))).toSorted()) {
      const path = join(root, plugin, name)
      const status = await stat(path).catch(() => undefined)
      if (status?.isBlockDevice() !== true) continue
      const number = deviceNumber(status.rdev)
      if (!numbers.has(number)) numbers.set(number, await realpath(path))
    }
  }
  if (numbers.size > MAX_DISKS) {
    throw new UsageError('ERR_POD_UNSUPPORTED', `the pod has ${numbers.size} block volumes, at most ${MAX_DISKS}`, {
      hint: 'Use fewer and larger ones',
    })
  }
  return [...numbers].map(([number, path], index) => ({ serial: `block-${index}`, path, number }))
}

/** makedev(3) of glibc, taken apart. */
function deviceNumber(rdev: number): string {
  const bits = BigInt(rdev)
  const major = ((bits >> 8n) & 0xfffn) | ((bits >> 32n) & ~0xfffn)
  const minor = (bits & 0xffn) | ((bits >> 12n) & ~0xffn & 0xffffffffn)
  return `${major}:${minor}`
}

async function namesIn(directory: string): Promise<readonly string[]> {
  return readdir(directory).catch((): string[] => [])
}
