// SHA-256 on OpenSSL's low-level functions, linked statically: the same code, with the processor's SHA instructions, on
// every machine, and none of the libcrypto that Node brings along. The EVP interface would allocate per digest, and
// dm-verity asks for one digest per 512 bytes.
#pragma once

#define OPENSSL_SUPPRESS_DEPRECATED
#include <openssl/sha.h>

#include <array>
#include <cstddef>
#include <cstdint>

namespace caisson {

using Digest = std::array<uint8_t, SHA256_DIGEST_LENGTH>;

class Sha256 {
 public:
  Sha256() { SHA256_Init(&context_); }

  void Update(const uint8_t* bytes, size_t length) { SHA256_Update(&context_, bytes, length); }

  Digest Finish() {
    Digest digest;
    SHA256_Final(digest.data(), &context_);
    return digest;
  }

  // The digest of `prefix so far` ‖ bytes; this object keeps its prefix and can be asked again.
  void DigestWithPrefix(const uint8_t* bytes, size_t length, uint8_t* digest) const {
    SHA256_CTX copy = context_;
    SHA256_Update(&copy, bytes, length);
    SHA256_Final(digest, &copy);
  }

 private:
  SHA256_CTX context_;
};

}  // namespace caisson
