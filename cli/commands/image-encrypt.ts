import { encryptLayout } from '#image/node/crypt-layout'
import { recipientsWrapper } from '#image/node/recipients'
import type { CommandSpec } from '../command.ts'

export const imageEncrypt: CommandSpec = {
  path: 'image encrypt',
  summary:
    'Encrypts the layers of an OCI layout for recipients (ocicrypt), into a new layout; push that one. Recipients are ' +
    'given as skopeo takes them: jwe:FILE, pkcs7:CERT, pgp:FILE, or a key of the verifier: ' +
    'provider:attestation-agent:keyid=kbs:///repo/type/tag::keypath=FILE, which only attested guests are given.',
  operands: 'DIR NEW_DIR',
  minOperands: 2,
  maxOperands: 2,
  options: {
    recipient: { type: 'string', multiple: true, short: 'r', placeholder: 'WHO', help: 'may be repeated' },
  },
  examples: [
    'caisson image encrypt ./web ./web-encrypted --recipient jwe:public.pem',
    'caisson image encrypt ./web ./web-encrypted --recipient provider:attestation-agent:keyid=kbs:///default/image-key/web::keypath=./key',
  ],
  run: async (invocation) => {
    const [source = '', target = ''] = invocation.operands
    const encrypted = await encryptLayout({
      source,
      target,
      wrap: recipientsWrapper(invocation.strings('recipient')),
      onLayer: ({ from, to, bytes }) => invocation.out.progress(`${from} -> ${to} ${bytes} bytes`, { from, to, bytes }),
    })
    invocation.out.result(encrypted, `encrypted ${encrypted.layers} layers: ${encrypted.digest}`)
    return 0
  },
}
