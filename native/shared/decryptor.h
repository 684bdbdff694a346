// Encrypted layers (ocicrypt, AES_256_CTR_HMAC_SHA256): AES-256-CTR over the whole blob as one stream, HMAC-SHA256 with
// the same key over the ciphertext. What comes out is not to be trusted before `Finish` has said that the code matches,
// which is at the end: until then it may fill files that nobody else sees, and nothing more.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "sha256.h"

struct evp_cipher_ctx_st;

namespace caisson {

class Decryptor {
 public:
  static constexpr size_t kKey = 32, kNonce = 16, kHmac = 32;

  Decryptor() = default;
  ~Decryptor();
  Decryptor(const Decryptor&) = delete;
  Decryptor& operator=(const Decryptor&) = delete;

  // Lengths as above. False when there is no memory.
  bool Begin(const std::vector<uint8_t>& key, const std::vector<uint8_t>& nonce, const std::vector<uint8_t>& hmac);

  // `output` has room for `length` bytes.
  bool Push(const uint8_t* input, size_t length, uint8_t* output);

  // Whether the code of all that was pushed is the one given to `Begin`.
  bool Finish();

 private:
  evp_cipher_ctx_st* context_ = nullptr;
  Sha256 inner_;
  Sha256 outer_;
  std::vector<uint8_t> hmac_;
};

}  // namespace caisson
