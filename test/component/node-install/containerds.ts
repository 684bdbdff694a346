/** containerd in the versions that nodes run: the machine's own, and those of two other Debian suites, unpacked. */
import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import { cachedDirectory } from '#tools/cache/entry'
import { type DebianPin, obtainPackages } from '#tools/debian/packages'

export type Release = '1.6' | '1.7' | '2'

const PINS: Readonly<Record<'1.7' | '2', { readonly suite: string; readonly pin: DebianPin }>> = {
  '1.7': {
    suite: 'trixie',
    pin: {
      name: 'containerd',
      version: '1.7.24~ds1-6+deb13u1',
      sha256: 'ed708deb96fe476a3bce4efa5c0538dfbcf717ab9a7c7944ba7260342c25899c',
    },
  },
  '2': {
    suite: 'sid',
    pin: {
      name: 'containerd',
      version: '2.1.9+ds1-5',
      sha256: '2dda86ce7033fd612fc50e136679d8174ccad680eb29cd4611e0d2a1b84cf591',
    },
  },
}

/** Folder of `containerd` and `ctr`. They need nothing of their suite but a C library as old as the machine's. */
export async function containerdFolder(release: Release): Promise<string> {
  if (release === '1.6') return '/usr/bin'
  const { suite, pin } = PINS[release]
  const [found] = await obtainPackages(suite, [pin], { evenExpired: true })
  if (found === undefined) throw new Error(`no containerd in ${suite}`)
  const folder = await cachedDirectory('tools', `containerd-${found.sha256.slice(0, 32)}`, async (directory) => {
    execFileSync('dpkg-deb', ['--extract', found.file, directory])
  })
  return join(folder, 'usr/bin')
}
