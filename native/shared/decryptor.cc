#include "decryptor.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include <climits>

namespace caisson {

namespace {

// FIPS 198-1: the key, padded to a block of the hash, under two masks.
constexpr size_t kHashBlock = 64;

Sha256 Masked(const std::vector<uint8_t>& key, uint8_t mask) {
  std::array<uint8_t, kHashBlock> block;
  for (size_t i = 0; i < block.size(); i++) block[i] = static_cast<uint8_t>((i < key.size() ? key[i] : 0) ^ mask);
  Sha256 hash;
  hash.Update(block.data(), block.size());
  OPENSSL_cleanse(block.data(), block.size());
  return hash;
}

}  // namespace

Decryptor::~Decryptor() {
  EVP_CIPHER_CTX_free(context_);
  OPENSSL_cleanse(&inner_, sizeof inner_);
  OPENSSL_cleanse(&outer_, sizeof outer_);
}

bool Decryptor::Begin(const std::vector<uint8_t>& key, const std::vector<uint8_t>& nonce,
                      const std::vector<uint8_t>& hmac) {
  if (key.size() != kKey || nonce.size() != kNonce || hmac.size() != kHmac) return false;
  // This copy of OpenSSL is ours alone: the configuration of the machine's is not for it.
  OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, nullptr);
  inner_ = Masked(key, 0x36);
  outer_ = Masked(key, 0x5c);
  hmac_ = hmac;
  context_ = EVP_CIPHER_CTX_new();
  return context_ != nullptr &&
         EVP_DecryptInit_ex(context_, EVP_aes_256_ctr(), nullptr, key.data(), nonce.data()) == 1;
}

bool Decryptor::Push(const uint8_t* input, size_t length, uint8_t* output) {
  inner_.Update(input, length);
  int written = 0;
  return length <= INT_MAX &&
         EVP_DecryptUpdate(context_, output, &written, input, static_cast<int>(length)) == 1 &&
         static_cast<size_t>(written) == length;
}

bool Decryptor::Finish() {
  const Digest inner = inner_.Finish();
  outer_.Update(inner.data(), inner.size());
  const Digest code = outer_.Finish();
  return CRYPTO_memcmp(code.data(), hmac_.data(), code.size()) == 0;
}

}  // namespace caisson
