import { UnavailableError } from '#protocol/errors'

/** A layer in a form that cannot be stored: encrypted, of an unknown media type or digest algorithm. */
export function unsupportedLayer(what: string, form: string): UnavailableError {
  return new UnavailableError('ERR_LAYER_UNSUPPORTED', `${what}: ${JSON.stringify(form)} is not supported`, {
    hint: form.endsWith('+encrypted')
      ? 'Encrypted layers are not supported yet. Push the image unencrypted to a registry of your own.'
      : 'Layers are tar, tar+gzip or tar+zstd, named by SHA-256.',
  })
}
