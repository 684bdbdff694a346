import { signImage } from '#image/node/sign'
import { signImageBundle } from '#image/node/sign-bundle'
import { UsageError } from '#protocol/errors'
import type { CommandSpec, Invocation } from '../command.ts'
import { readUserFile } from '../files.ts'
import { REGISTRY_OPTIONS, withRegistry } from '../registries.ts'

export const imageSign: CommandSpec = {
  path: 'image sign',
  summary:
    'Signs an image: in cosign’s format (a `.sig` tag beside it), or as cosign 3 does, by a sigstore bundle that refers ' +
    'to it; with a predicate the bundle is an attestation. Name the image by digest: a tag may have moved.',
  operands: 'REFERENCE',
  minOperands: 1,
  maxOperands: 1,
  options: {
    ...REGISTRY_OPTIONS,
    key: { type: 'string', placeholder: 'FILE', help: 'private key: PEM, or as cosign encrypts it' },
    password: { type: 'string', placeholder: 'FILE', help: 'file with the password of an encrypted key' },
    form: { type: 'string', placeholder: 'tag|bundle', help: 'where the signature goes', default: 'tag' },
    predicate: { type: 'string', placeholder: 'FILE', help: 'with --form bundle: JSON to attest' },
    'predicate-type': { type: 'string', placeholder: 'URI', help: 'what kind of predicate that is' },
  },
  examples: [
    'caisson image sign --key cosign.key registry.example/shop/web@sha256:<digest> --ca ca.pem',
    'caisson image sign --key cosign.key --form bundle --predicate slsa.json --predicate-type https://slsa.dev/provenance/v1 registry.example/shop/web@sha256:<digest> --ca ca.pem',
  ],
  run: (invocation) =>
    withRegistry(invocation, async (registry) => {
      const options = { reference: invocation.operand(0), registry, ...signingKey(invocation) }
      if (isBundle(invocation)) {
        const signed = await signImageBundle({ ...options, ...predicateOf(invocation) })
        invocation.out.result(signed, `signed ${signed.reference} (referrer ${signed.referrer})`)
      } else {
        const signed = await signImage(options)
        invocation.out.result(signed, `signed ${signed.reference} (${signed.signatureTag})`)
      }
      return 0
    }),
}

function signingKey(invocation: Invocation): { privatePem: string; password?: string } {
  const privatePem = readUserFile(invocation.required('key'), 'signing key').toString('utf8')
  const path = invocation.string('password')
  if (path === undefined) return { privatePem }
  return {
    privatePem,
    password: readUserFile(path, 'password')
      .toString('utf8')
      .replace(/\r?\n$/, ''),
  }
}

function isBundle(invocation: Invocation): boolean {
  const form = invocation.required('form')
  if (form === 'tag' || form === 'bundle') return form === 'bundle'
  throw new UsageError('ERR_USAGE', `--form is ${JSON.stringify(form)}, expected tag or bundle`)
}

function predicateOf(invocation: Invocation): { predicate?: { type: string; value: unknown } } {
  const path = invocation.string('predicate')
  if (path === undefined) return {}
  const type = invocation.required('predicate-type')
  try {
    return { predicate: { type, value: JSON.parse(readUserFile(path, 'predicate').toString('utf8')) } }
  } catch (cause) {
    if (cause instanceof UsageError) throw cause
    throw new UsageError('ERR_USAGE', `predicate ${JSON.stringify(path)} is not JSON`, { cause })
  }
}
