/**
 * What the root file system has besides programs: directories to mount on, links of the merged /usr, and the few files
 * that libraries look for. All of it is read-only in the guest; what changes lives in /run.
 */
import type { TarEntry } from './tar.ts'

const directory = (path: string, mode = 0o755): TarEntry => ({ kind: 'directory', path, mode })
const link = (path: string, target: string): TarEntry => ({ kind: 'link', path, target })
const text = (path: string, content: string): TarEntry => ({
  kind: 'file',
  path,
  mode: 0o644,
  content: new TextEncoder().encode(content),
})

export const LAYOUT: readonly TarEntry[] = [
  directory('dev'),
  directory('etc'),
  directory('proc', 0o555),
  directory('run'),
  directory('sys', 0o555),
  directory('tmp', 0o1777),
  directory('usr'),
  directory('usr/bin'),
  directory('usr/lib'),
  directory('usr/lib/caisson'),
  directory('usr/lib/x86_64-linux-gnu'),
  directory('usr/lib64'),
  directory('usr/sbin'),
  link('bin', 'usr/bin'),
  link('lib', 'usr/lib'),
  link('lib64', 'usr/lib64'),
  link('sbin', 'usr/sbin'),

  // No password, no shell, nobody logs in: the names are for programs that print them.
  text('etc/passwd', 'root:x:0:0:root:/run:/usr/sbin/nologin\nnobody:x:65534:65534:nobody:/run:/usr/sbin/nologin\n'),
  text('etc/group', 'root:x:0:\ntty:x:5:\nnogroup:x:65534:\n'),
  text('etc/hosts', '127.0.0.1 localhost\n::1 localhost\n'),
  // Written by the agent when it configures the network.
  link('etc/resolv.conf', '../run/caisson/resolv.conf'),
  link('etc/mtab', '../proc/self/mounts'),
]
