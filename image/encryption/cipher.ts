/** The cryptography that encrypted layers ask of their surroundings; `../node/layer-cipher.ts` has it from OpenSSL. */
export interface LayerCipher {
  /** AES-256-CTR over one stream: 16-byte initial counter block, counted as one big-endian number. */
  counterMode(key: Uint8Array, counter: Uint8Array): (bytes: Uint8Array) => Uint8Array
  hmacSha256(key: Uint8Array): { update(bytes: Uint8Array): void; digest(): Uint8Array }
  /** AES-256-GCM of ciphertext ‖ 16-byte tag, no additional data. Undefined when the tag does not fit. */
  openGcm(key: Uint8Array, iv: Uint8Array, sealed: Uint8Array): Uint8Array | undefined
  sealGcm(key: Uint8Array, iv: Uint8Array, plain: Uint8Array): Uint8Array
}
