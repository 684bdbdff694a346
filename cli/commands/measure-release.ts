import { signReleaseManifest } from '#attestation/measure/release-manifest'
import { readSigningKey } from '#image/node/signing-key'
import { UsageError } from '#protocol/errors'
import type { CommandSpec } from '../command.ts'
import { readUserFile, writeUserFile } from '../files.ts'

export const measureRelease: CommandSpec = {
  path: 'measure release',
  summary:
    'Signs the reference values of a release: who registers them (`caisson verifier reference-value register --release-key`)\nknows that they are those of its maker.',
  operands: 'NAME FILE…',
  minOperands: 2,
  maxOperands: 257,
  options: {
    key: { type: 'string', placeholder: 'FILE', help: 'private key: PEM, or as cosign encrypts it' },
    password: { type: 'string', placeholder: 'FILE', help: 'file with the password of an encrypted key' },
    output: { type: 'string', short: 'o', placeholder: 'FILE', help: 'where to write the manifest' },
  },
  examples: ['caisson measure release 2.4.0 web.json db.json --key release.key -o release-2.4.0.json'],
  run: async (invocation) => {
    const [release = '', ...files] = invocation.operands
    const text = (path: string, what: string): string => readUserFile(path, what).toString('utf8')
    const passwordFile = invocation.string('password')
    const password = passwordFile === undefined ? undefined : text(passwordFile, 'password').replace(/\r?\n$/, '')
    const key = readSigningKey(text(invocation.required('key'), 'signing key'), password)
    const documents = files.map((path) => json(path, text(path, 'reference values')))
    const manifest = signReleaseManifest({ release, documents }, key)
    const output = invocation.required('output')
    writeUserFile(output, manifest)
    invocation.out.result({ release, documents: files.length, file: output }, `wrote ${output}`)
    return 0
  },
}

function json(path: string, text: string): string {
  try {
    JSON.parse(text)
    return text
  } catch (cause) {
    throw new UsageError('ERR_USAGE', `${JSON.stringify(path)} is not JSON`, {
      hint: 'Use what `caisson measure tpm -o` writes, or `caisson measure snp|tdx --json` prints.',
      cause,
    })
  }
}
