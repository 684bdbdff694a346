/** AES-GCM with a key that stays in a PKCS #11 token (HSM, smart card, cloud key service): the module is loaded and called. */
import { createRequire } from 'node:module'
import { errorText, UnavailableError } from '#protocol/errors'

/** Which key. Texts match exactly; an absent one matches everything, and exactly one key must be left. */
export interface TokenKey {
  /** Absolute path of the PKCS #11 module. */
  readonly modulePath: string
  readonly token?: string
  readonly serial?: string
  readonly object?: string
  readonly id?: Uint8Array
}

export interface TokenMessage {
  /** 12 bytes. */
  readonly iv: Uint8Array
  readonly aad: Uint8Array
  /** Plaintext; or ciphertext ‖ tag of 16 bytes. */
  readonly data: Uint8Array
}

interface Outcome {
  readonly status: number
  readonly rv: number
  readonly function: string
  readonly detail: string
  readonly bytes: Uint8Array
}

interface Binding {
  useToken(request: Readonly<Record<string, string | number | Uint8Array>>): Promise<Outcome>
}

/** Numbers of token.h. */
const OPERATION = { encrypt: 0, decrypt: 1, generate: 2 } as const
const OK = 0
const FAILED = 7
/** By the numbers of `TokenStatus`: what is wrong, and what to do. */
const PROBLEMS: Readonly<Record<number, readonly [string, string]>> = {
  1: ['the PKCS #11 module cannot be used', 'Name the module by its absolute path (module-path).'],
  2: ['no token has that name', 'List the tokens with the tool of their maker; see `token` and `serial`.'],
  3: ['several tokens have that name', 'Name the token by `serial`, too.'],
  4: ['the token has no AES key of that name', 'See `object` and `id`, or let `caisson verifier rekey` make the key.'],
  5: ['the token has a key of that name already, or several', 'Name the key by `id`, too, or choose another name.'],
  6: ['the key may leave the token', 'Use a key that is sensitive and not extractable, made inside the token.'],
}
/** CKR_PIN_INCORRECT, CKR_PIN_LOCKED, CKR_PIN_EXPIRED. */
const PIN_PROBLEMS: ReadonlySet<number> = new Set([0xa0, 0xa3, 0xa4])

const require = createRequire(import.meta.url)
let binding: Binding | undefined

/** @throws UnavailableError ERR_PKCS11 */
export async function encryptInToken(key: TokenKey, pin: string, message: TokenMessage): Promise<Uint8Array> {
  return await use(OPERATION.encrypt, key, pin, message)
}

/** @throws UnavailableError ERR_PKCS11, also when the message was changed */
export async function decryptInToken(key: TokenKey, pin: string, message: TokenMessage): Promise<Uint8Array> {
  return await use(OPERATION.decrypt, key, pin, message)
}

/** Makes the key, AES with 256 bits, never to leave the token. @throws UnavailableError ERR_PKCS11 when there is one */
export async function generateInToken(key: TokenKey, pin: string): Promise<void> {
  const none = new Uint8Array()
  await use(OPERATION.generate, key, pin, { iv: none, aad: none, data: none })
}

async function use(
  operation: (typeof OPERATION)[keyof typeof OPERATION],
  { modulePath, token = '', serial = '', object = '', id = new Uint8Array() }: TokenKey,
  pin: string,
  message: TokenMessage,
): Promise<Uint8Array> {
  const key = { module: modulePath, token, serial, label: object, id, pin }
  const outcome = await load().useToken({ ...key, operation, ...message })
  if (outcome.status === OK) return outcome.bytes
  const [problem, hint] = PROBLEMS[outcome.status] ?? failure(outcome)
  throw new UnavailableError('ERR_PKCS11', outcome.detail === '' ? problem : `${problem}: ${outcome.detail}`, { hint })
}

function failure({ status, rv, function: name }: Outcome): readonly [string, string] {
  const code = `CKR 0x${rv.toString(16).padStart(8, '0')}`
  if (status === FAILED && PIN_PROBLEMS.has(rv)) return [`the token refuses the PIN (${code})`, 'Check pin-source.']
  return [`${name} of the PKCS #11 module failed (${code})`, 'Look the code up in the documentation of the module.']
}

/** Loaded when a token is first used: most verifiers have none. */
function load(): Binding {
  if (binding !== undefined) return binding
  try {
    const loaded: Binding = require('../../build/pkcs11.node')
    binding = loaded
    return loaded
  } catch (cause) {
    throw new UnavailableError('ERR_PKCS11', `PKCS #11 is not built: ${errorText(cause).split('\n')[0]}`, {
      hint: 'Build it: node native/build.mjs --only pkcs11',
      cause,
    })
  }
}
