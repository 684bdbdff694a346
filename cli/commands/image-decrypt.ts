import { packetUnwrapper } from '#image/encryption/unwrap'
import { decryptLayout } from '#image/node/crypt-layout'
import { nodeLayerCipher } from '#image/node/layer-cipher'
import { keyFileUnwrappers } from '#image/node/recipients'
import { UnavailableError } from '#protocol/errors'
import type { CommandSpec, Invocation } from '../command.ts'
import { readUserFile } from '../files.ts'

export const imageDecrypt: CommandSpec = {
  path: 'image decrypt',
  summary:
    'Decrypts the layers of an OCI layout into a new layout. A layer gets its name only when its HMAC and its digest held.',
  operands: 'DIR NEW_DIR',
  minOperands: 2,
  maxOperands: 2,
  options: {
    key: { type: 'string', multiple: true, placeholder: 'FILE[:PASSWORDFILE]', help: 'private key; may be repeated' },
    'provider-key': {
      type: 'string',
      multiple: true,
      placeholder: 'URI=FILE',
      help: 'key that the image names by kbs:/// URI; may be repeated',
    },
  },
  examples: [
    'caisson image decrypt ./web-encrypted ./web --key private.pem',
    'caisson image decrypt ./web-encrypted ./web --provider-key kbs:///default/image-key/web=./key',
  ],
  run: async (invocation) => {
    const [source = '', target = ''] = invocation.operands
    const files = invocation.strings('key').map((text) => {
      const [path = '', passwordFile] = text.split(':')
      if (passwordFile === undefined) return { path }
      return { path, password: readUserFile(passwordFile, 'password').toString('utf8').trimEnd() }
    })
    const decrypted = await decryptLayout({
      source,
      target,
      unwrappers: [...keyFileUnwrappers(files), packetUnwrapper(nodeLayerCipher, providerKeys(invocation))],
      onLayer: ({ from, to, bytes }) => invocation.out.progress(`${from} -> ${to} ${bytes} bytes`, { from, to, bytes }),
    })
    invocation.out.result(decrypted, `decrypted ${decrypted.layers} layers: ${decrypted.digest}`)
    return 0
  },
}

function providerKeys(invocation: Invocation): (uri: string) => Promise<Uint8Array> {
  const files = new Map(
    invocation.strings('provider-key').map((text): [string, string] => {
      const equals = text.indexOf('=')
      return [text.slice(0, equals), text.slice(equals + 1)]
    }),
  )
  return async (uri) => {
    const path = files.get(uri)
    if (path !== undefined) return readUserFile(path, 'provider key')
    throw new UnavailableError('ERR_LAYER_KEY_NONE', `the image asks for the key ${uri}, which was not given`, {
      hint: `Give it: --provider-key ${uri}=FILE.`,
    })
  }
}
