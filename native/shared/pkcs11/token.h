// One AES key in a PKCS #11 token, and AES-GCM with it inside the token.
#ifndef CAISSON_SHARED_PKCS11_TOKEN_H_
#define CAISSON_SHARED_PKCS11_TOKEN_H_

#include <cstdint>
#include <string>
#include <vector>

namespace caisson {

// Numbers are API of index.ts.
enum class TokenStatus {
  kOk = 0,
  kModule = 1,       // the module cannot be loaded
  kTokenNone = 2,    // no token has that name
  kTokenMany = 3,    // several have
  kKeyNone = 4,      // no AES key in it has that name
  kKeyMany = 5,      // several have
  kExtractable = 6,  // the key may leave the token
  kFailed = 7,       // a function of the module failed; see `rv`
};

struct TokenOutcome {
  TokenStatus status = TokenStatus::kOk;
  unsigned long rv = 0;
  const char* function = "";
  std::string detail;
  std::vector<uint8_t> bytes;
};

// Empty texts and bytes match everything.
struct KeyAddress {
  std::string module;
  std::string token;
  std::string serial;
  std::string label;
  std::vector<uint8_t> id;
  std::string pin;
};

enum class TokenOperation { kEncrypt = 0, kDecrypt = 1, kGenerate = 2 };

struct TokenRequest {
  KeyAddress key;
  TokenOperation operation;
  std::vector<uint8_t> iv;
  std::vector<uint8_t> aad;
  // Plaintext, or ciphertext ‖ tag of 16 bytes.
  std::vector<uint8_t> data;
};

// Calls are serialised: a module need not be safe for several threads. It stays loaded.
TokenOutcome UseToken(TokenRequest& request);

}  // namespace caisson

#endif  // CAISSON_SHARED_PKCS11_TOKEN_H_
