// Writes gen/ beside each folder of .proto files. Needs protoc and its well-known types (Debian: protobuf-compiler,
// libprotobuf-dev); run after changing a .proto.
import { execFileSync } from 'node:child_process'
import { mkdirSync, readdirSync, rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const bin = join(root, 'node_modules', '.bin')

for (const folder of ['protocol', 'host-shim/containerd', 'test/fixtures/cri']) {
  const sources = readdirSync(join(root, folder, 'proto')).filter((name) => name.endsWith('.proto'))
  const output = join(root, folder, 'gen')
  rmSync(output, { recursive: true, force: true })
  mkdirSync(output)
  execFileSync(
    'protoc',
    [
      `--proto_path=${join(root, folder, 'proto')}`,
      `--plugin=protoc-gen-es=${join(bin, 'protoc-gen-es')}`,
      `--es_out=${output}`,
      '--es_opt=target=ts,import_extension=ts,erasable_syntax=true',
      ...sources,
    ],
    // The plugin names `node` in its first line; the pinned one comes first.
    { stdio: 'inherit', env: { ...process.env, PATH: `${bin}:${process.env.PATH ?? ''}` } },
  )
}
