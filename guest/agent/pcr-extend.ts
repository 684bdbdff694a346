/** TPM2_PCR_Extend (TPM 2.0 Library, Part 3, 22.2) in the SHA-256 bank with an empty password. */
import { UnavailableError } from '#protocol/errors'
import type { Tpm } from '../platform/platform.ts'

const TPM_ST_SESSIONS = 0x8002
const TPM_CC_PCR_EXTEND = 0x182
const TPM_RS_PW = 0x40000009
const TPM_ALG_SHA256 = 0x000b
const COMMAND_BYTES = 10 + 4 + 4 + 9 + 4 + 2 + 32
const AUTHORIZATION_BYTES = 9
const RESPONSE_CODE_OFFSET = 6

/** @param digest 32 bytes. Throws `UnavailableError` ERR_TPM_EXTEND with the response code. */
export async function extendPcr(tpm: Tpm, pcr: number, digest: Uint8Array): Promise<void> {
  if (digest.byteLength !== 32) throw new RangeError(`a SHA-256 digest has 32 bytes, not ${digest.byteLength}`)
  const command = new Uint8Array(COMMAND_BYTES)
  const view = new DataView(command.buffer)
  view.setUint16(0, TPM_ST_SESSIONS)
  view.setUint32(2, COMMAND_BYTES)
  view.setUint32(6, TPM_CC_PCR_EXTEND)
  view.setUint32(10, pcr)
  view.setUint32(14, AUTHORIZATION_BYTES)
  view.setUint32(18, TPM_RS_PW)
  // Nonce (u16), session attributes (u8) and password (u16) stay zero: none.
  view.setUint32(27, 1)
  view.setUint16(31, TPM_ALG_SHA256)
  command.set(digest, 33)
  const response = await tpm.submit(command)
  const { buffer, byteOffset, byteLength } = response
  const code =
    byteLength < 10 ? 0xffffffff : new DataView(buffer, byteOffset, byteLength).getUint32(RESPONSE_CODE_OFFSET)
  if (code !== 0) throw new UnavailableError('ERR_TPM_EXTEND', `PCR ${pcr}: response code 0x${code.toString(16)}`)
}
