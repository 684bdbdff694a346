/** An image with a shell and a few tools, made from the programs of this machine. */
import { execFileSync } from 'node:child_process'
import { readFileSync, realpathSync } from 'node:fs'
import type { LayerSource } from '#tools/nginx-image/layout'
import type { TarEntry } from '#tools/nginx-image/tar'

const PROGRAMS = [
  'sh',
  'cat',
  'ls',
  'sleep',
  'id',
  'stat',
  'stty',
  'env',
  'hostname',
  'mkdir',
  'dd',
  'true',
  'false',
  'mount',
  'unshare',
  'setarch',
  'ln',
  'sum',
  'sync',
]
const PASSWD = 'root:x:0:0:root:/root:/bin/sh\nweb:x:33:33:web:/srv:/bin/sh\n'
const GROUP = 'root:x:0:\nweb:x:33:\nlogs:x:44:web\n'

/** Base: programs and libraries (gzip); above it: users and a file that a third layer removes again. */
export function shellLayers(): readonly LayerSource[] {
  const paths = PROGRAMS.map((name) => realpathSync(`/bin/${name}`))
  const libraries = new Set<string>()
  for (const path of paths) {
    const listed = execFileSync('ldd', [path], { encoding: 'utf8' })
    for (const [library] of listed.matchAll(/\/lib[^ ]+/g)) libraries.add(library)
  }
  const entries: TarEntry[] = ['bin', 'lib64', 'lib', 'lib/x86_64-linux-gnu', 'tmp', 'srv'].map((path) => ({
    path,
    type: 'directory',
    mode: path === 'tmp' ? 0o1777 : 0o755,
  }))
  PROGRAMS.forEach((name, index) => {
    entries.push({ path: `bin/${name}`, type: 'file', mode: 0o755, content: readFileSync(paths[index] ?? '') })
  })
  for (const library of libraries) {
    const content = readFileSync(realpathSync(library))
    entries.push({ path: library.slice(1), type: 'file', mode: 0o755, content })
  }
  const text = (path: string, content: string): TarEntry => {
    return { path, type: 'file', mode: 0o644, content: new TextEncoder().encode(content) }
  }
  const etc: TarEntry = { path: 'etc', type: 'directory', mode: 0o755 }
  return [
    { compression: 'gzip', entries },
    {
      compression: 'zstd',
      entries: [etc, text('etc/passwd', PASSWD), text('etc/group', GROUP), text('etc/gone', 'x')],
    },
    { compression: 'none', entries: [etc, text('etc/.wh.gone', ''), text('etc/motd', 'top layer\n')] },
  ]
}
