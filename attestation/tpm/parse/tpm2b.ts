/**
 * The content of a TPM2B that holds exactly one structure, or the bytes themselves when they are bare: tools write both. No
 * structure that is read here begins with its own length minus two, so there is nothing to guess.
 */
export function unwrapTpm2b(bytes: Uint8Array): Uint8Array {
  const length = ((bytes[0] ?? 0) << 8) | (bytes[1] ?? 0)
  return bytes.length > 2 && length === bytes.length - 2 ? bytes.slice(2) : bytes
}
