import { createPrivateKey, type KeyObject } from 'node:crypto'
import { createIdAuth, createIdBlock, idKeyDigest } from '#attestation/measure/snp/id-block'
import { fromBase64, fromHex, toBase64, toHex } from '#protocol/encoding'
import { UsageError } from '#protocol/errors'
import type { CommandSpec, Invocation } from '../command.ts'
import { EXIT_YES } from '../exit-code.ts'
import { readUserFile, writeUserFile } from '../files.ts'

const DIGEST_HEX_DIGITS = 96

export const measureIdBlock: CommandSpec = {
  path: 'measure id-block',
  summary:
    'Makes the signed identity of an SEV-SNP guest: the firmware launches it only with this launch digest and policy, and\nreports whose key signed. The output, as JSON, is also collateral for `caisson evidence verify`.',
  operands: '',
  minOperands: 0,
  maxOperands: 0,
  options: {
    measurement: { type: 'string', placeholder: 'HEX|BASE64', help: 'launch digest, from `caisson measure snp`' },
    'id-key': { type: 'string', placeholder: 'FILE', help: 'PEM private key on P-384 that signs the block' },
    'author-key': { type: 'string', placeholder: 'FILE', help: 'PEM private key on P-384 that vouches for the ID key' },
    'family-id': { type: 'string', placeholder: 'HEX', help: '16 bytes (default: zeros)' },
    'image-id': { type: 'string', placeholder: 'HEX', help: '16 bytes (default: zeros)' },
    'guest-svn': { type: 'string', placeholder: 'N', help: 'security version of the guest', default: '0' },
    policy: { type: 'string', placeholder: 'HEX', help: 'GUEST_POLICY', default: '0x30000' },
    output: { type: 'string', short: 'o', placeholder: 'FILE', help: 'where to write the JSON' },
  },
  examples: [
    'caisson measure id-block --measurement 329c…f198 --id-key id.pem --author-key author.pem -o id-block.json',
  ],
  run: async (invocation) => {
    const idKey = privateKey(invocation.required('id-key'), 'ID key')
    const authorFile = invocation.string('author-key')
    const authorKey = authorFile === undefined ? undefined : privateKey(authorFile, 'author key')
    const familyId = optionalHex(invocation, 'family-id')
    const imageId = optionalHex(invocation, 'image-id')
    const block = createIdBlock({
      launchDigest: launchDigest(invocation.required('measurement')),
      ...(familyId === undefined ? {} : { familyId }),
      ...(imageId === undefined ? {} : { imageId }),
      guestSvn: invocation.integer('guest-svn', 0, 0xffff_ffff),
      policy: policyOf(invocation.required('policy')),
    })
    const auth = createIdAuth(block, { idKey, ...(authorKey === undefined ? {} : { authorKey }) })
    const result = {
      id_block: toBase64(block),
      id_auth: toBase64(auth),
      id_key_digest: toHex(idKeyDigest(idKey)),
      ...(authorKey === undefined ? {} : { author_key_digest: toHex(idKeyDigest(authorKey)) }),
    }
    const output = invocation.string('output')
    if (output !== undefined) writeUserFile(output, `${JSON.stringify(result)}\n`)
    const lines = Object.entries(result).map(([name, value]) => `${name} ${value}`)
    invocation.out.result(result, output === undefined ? lines.join('\n') : `written to ${output}`)
    return EXIT_YES
  },
}

function privateKey(file: string, what: string): KeyObject {
  const pem = readUserFile(file, what)
  try {
    return createPrivateKey(pem)
  } catch (cause) {
    throw new UsageError('ERR_SNP_ID_KEY', `the ${what} in ${JSON.stringify(file)} is not a private key`, {
      hint: 'Make one with `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384`.',
      cause,
    })
  }
}

/** Both forms are in use; their lengths tell them apart. */
function launchDigest(text: string): Uint8Array {
  return text.length === DIGEST_HEX_DIGITS ? fromHex(text, '--measurement') : fromBase64(text, '--measurement')
}

function optionalHex(invocation: Invocation, name: string): Uint8Array | undefined {
  const text = invocation.string(name)
  return text === undefined ? undefined : fromHex(text, `--${name}`)
}

function policyOf(text: string): bigint {
  const [, digits = ''] = /^(?:0x)?([0-9a-f]{1,16})$/i.exec(text) ?? []
  if (digits !== '') return BigInt(`0x${digits}`)
  throw new UsageError('ERR_USAGE', `--policy is ${JSON.stringify(text)}, expected up to 16 hexadecimal digits`)
}
