/** Why the native pipeline gave a layer up, as errors. */
import { type CaissonError, MalformedError, UnavailableError, UnverifiedError } from '#protocol/errors'

export type LayerFailure =
  | 'truncated'
  | 'corrupt'
  | 'window-too-large'
  | 'too-large'
  | 'ratio'
  | 'file'
  | 'cancelled'
  | 'no-memory'
  | 'entry'
  | 'unauthenticated'

export interface FailureContext {
  readonly what: string
  readonly compression: string
  readonly maxTarBytes: number
  readonly maxRatio: number
  /** Name of the operating system's error for `file`: "ENOSPC". */
  readonly errno: string
  /** With `entry`: what is wrong with which entry of the tar. */
  readonly entry?: { readonly problem: string; readonly name: string } | undefined
}

export function layerFailure(failure: LayerFailure, context: FailureContext): CaissonError {
  const { what, compression } = context
  switch (failure) {
    case 'truncated':
      return new UnverifiedError('ERR_LAYER_TRUNCATED', `${what}: its ${compression} stream ends early`)
    case 'corrupt':
      return new MalformedError('ERR_LAYER_CORRUPT', `${what}: not a valid ${compression} stream`)
    case 'window-too-large':
      return new MalformedError('ERR_LAYER_WINDOW', `${what}: needs a zstd window beyond 128 MiB`, {
        hint: 'Compress the layer without --ultra --long above 27.',
      })
    case 'too-large':
      return new MalformedError('ERR_LAYER_TOO_LARGE', `${what}: more than ${context.maxTarBytes} bytes as a tar`)
    case 'ratio':
      return new MalformedError(
        'ERR_LAYER_RATIO',
        `${what}: expands more than ${context.maxRatio} times, which is no honest layer`,
      )
    case 'file':
      return context.errno === 'ENOSPC' || context.errno === 'EDQUOT'
        ? new UnavailableError('ERR_LAYER_DISK_FULL', `${what}: no space left for the layer`, {
            hint: 'Give the pod a larger image scratch disk.',
          })
        : new UnavailableError('ERR_LAYER_FILE', `${what}: cannot write the layer: ${context.errno}`)
    case 'cancelled':
      return new UnavailableError('ERR_LAYER_CANCELLED', `${what}: cancelled`)
    case 'no-memory':
      return new UnavailableError('ERR_LAYER_MEMORY', `${what}: no memory left for decompression`)
    case 'entry': {
      const { name = '', problem = 'refused' } = context.entry ?? {}
      return new MalformedError('ERR_LAYER_ENTRY', `${what}: entry ${JSON.stringify(name.slice(0, 300))}: ${problem}`, {
        hint: 'Build the layer again without this entry.',
      })
    }
    case 'unauthenticated':
      return new UnverifiedError('ERR_LAYER_HMAC', `${what}: its ciphertext is not the one its code was made for`, {
        hint: 'It was changed, or another key was given. Encrypt and push the image again from a trusted source.',
      })
    default:
      return failure satisfies never
  }
}
