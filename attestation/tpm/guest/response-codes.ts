/** Response codes in words (TPM 2.0 part 2, section 6.6). */

const FORMAT_ONE = 0x080
const PARAMETER = 0x040
const SESSION = 0x800

/** Format 0 codes: errors 1xx, warnings 9xx. */
const PLAIN: Readonly<Record<number, string>> = {
  256: 'the TPM is not started up, or already is',
  257: 'failure inside the TPM',
  288: 'the command is disabled',
  293: 'an authorization is missing',
  303: 'this kind of authorization is not possible here',
  322: 'the command’s size does not fit its header',
  323: 'the command is not known to this TPM',
  324: 'the command cannot use a session',
  326: 'the range lies outside the NV index',
  328: 'the NV index is locked',
  329: 'the NV index is not authorized so',
  330: 'the NV index was never written',
  2306: 'no room for another object',
  2307: 'no room for another session',
  2308: 'not enough memory',
  2311: 'not possible from this locality',
  2320: 'the first handle is not loaded',
  2336: 'the TPM limits how often NV is written',
  2337: 'locked out after too many wrong authorizations',
  2338: 'the TPM asks to try again, and again',
}

/** Format 1 codes, without the handle, parameter or session number. */
const NUMBERED: Readonly<Record<number, string>> = {
  1: 'asymmetric algorithm not supported',
  2: 'attributes do not fit together',
  3: 'hash algorithm not known',
  4: 'value out of range',
  5: 'hierarchy not enabled or wrong',
  11: 'handle of the wrong kind',
  14: 'wrong authorization (counts towards a lockout)',
  18: 'scheme does not fit',
  21: 'structure of the wrong size',
  26: 'not enough bytes',
  29: 'policy not satisfied',
  31: 'integrity check failed',
  34: 'wrong authorization',
  38: 'policy: wrong command code',
  39: 'point is not on the curve',
}

/** One sentence without a full stop: what the TPM says, about which operand, and the code itself. */
export function responseText(code: number): string {
  const hex = `TPM response 0x${(code >>> 0).toString(16).padStart(3, '0')}`
  const layer = (code >>> 16) & 0xff
  const base = code & 0xfff
  const from = layer === 0x0b ? ' (from the kernel’s resource manager)' : ''
  if ((base & FORMAT_ONE) === 0) return `${PLAIN[base] ?? 'error'}: ${hex}${from}`
  const text = NUMBERED[base & 0x3f] ?? 'error'
  return `${text}, ${operand(base)}: ${hex}${from}`
}

function operand(base: number): string {
  if ((base & PARAMETER) !== 0) return `parameter ${(base >> 8) & 0xf}`
  return (base & SESSION) !== 0 ? `session ${(base >> 8) & 0x7}` : `handle ${(base >> 8) & 0x7}`
}

/** TPM_RC_HANDLE for the first handle: the NV index or object does not exist. */
export const RC_NO_SUCH_HANDLE = 0x18b
