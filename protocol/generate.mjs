// Writes protocol/gen/ from protocol/proto/*.proto. Needs protoc (Debian: protobuf-compiler); run after changing a .proto.
import { execFileSync } from 'node:child_process'
import { mkdirSync, readdirSync, rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const protocol = dirname(fileURLToPath(import.meta.url))
const bin = join(protocol, '..', 'node_modules', '.bin')
const sources = readdirSync(join(protocol, 'proto')).filter((name) => name.endsWith('.proto'))

rmSync(join(protocol, 'gen'), { recursive: true, force: true })
mkdirSync(join(protocol, 'gen'))
execFileSync(
  'protoc',
  [
    `--proto_path=${join(protocol, 'proto')}`,
    `--plugin=protoc-gen-es=${join(bin, 'protoc-gen-es')}`,
    `--es_out=${join(protocol, 'gen')}`,
    '--es_opt=target=ts,import_extension=ts,erasable_syntax=true',
    ...sources,
  ],
  // The plugin names `node` in its first line; the pinned one comes first.
  { stdio: 'inherit', env: { ...process.env, PATH: `${bin}:${process.env.PATH ?? ''}` } },
)
