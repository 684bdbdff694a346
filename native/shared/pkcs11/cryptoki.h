// As much of PKCS #11 (Cryptoki 2.40, OASIS "PKCS #11 Cryptographic Token Interface Base Specification") as using one AES
// key takes. Layouts are those of the specification on Unix: no packing, CK_ULONG is `unsigned long`.
#ifndef CAISSON_SHARED_PKCS11_CRYPTOKI_H_
#define CAISSON_SHARED_PKCS11_CRYPTOKI_H_

#include <cstdint>

namespace caisson::cryptoki {

using Ulong = unsigned long;
using Rv = Ulong;
using Handle = Ulong;

constexpr Rv kOk = 0x000;
constexpr Rv kUserAlreadyLoggedIn = 0x100;
constexpr Rv kAlreadyInitialized = 0x191;

constexpr Ulong kOsLocking = 0x2;
constexpr Ulong kSerialSession = 0x4;
constexpr Ulong kReadWriteSession = 0x2;
constexpr Ulong kUser = 1;

constexpr Ulong kClassSecretKey = 4;
constexpr Ulong kKeyTypeAes = 0x1f;
constexpr Ulong kMechanismAesKeyGen = 0x1080;
constexpr Ulong kMechanismAesGcm = 0x1087;

enum Attribute : Ulong {
  kClass = 0x000,
  kToken = 0x001,
  kPrivate = 0x002,
  kLabel = 0x003,
  kKeyType = 0x100,
  kId = 0x102,
  kSensitive = 0x103,
  kEncrypt = 0x104,
  kDecrypt = 0x105,
  kValueLength = 0x161,
  kExtractable = 0x162,
};

struct AttributeValue {
  Ulong type;
  void* value;
  Ulong length;
};

struct Mechanism {
  Ulong type;
  void* parameter;
  Ulong length;
};

struct GcmParameters {
  uint8_t* iv;
  Ulong iv_length;
  Ulong iv_bits;
  uint8_t* aad;
  Ulong aad_length;
  Ulong tag_bits;
};

struct InitializeArguments {
  void* create_mutex;
  void* destroy_mutex;
  void* lock_mutex;
  void* unlock_mutex;
  Ulong flags;
  void* reserved;
};

struct Version {
  uint8_t major;
  uint8_t minor;
};

// Texts are padded with blanks and have no end mark.
struct TokenInfo {
  uint8_t label[32];
  uint8_t manufacturer[32];
  uint8_t model[16];
  uint8_t serial[16];
  Ulong flags;
  Ulong numbers[10];
  Version hardware;
  Version firmware;
  uint8_t time[16];
};

// CK_FUNCTION_LIST up to the last function that is used; the order is the specification's. Unused entries are pointers.
struct Functions {
  Version version;
  Rv (*Initialize)(InitializeArguments*);
  void* Finalize;
  void* GetInfo;
  void* GetFunctionList;
  Rv (*GetSlotList)(uint8_t with_token, Ulong* slots, Ulong* count);
  void* GetSlotInfo;
  Rv (*GetTokenInfo)(Ulong slot, TokenInfo*);
  void* GetMechanismList;
  void* GetMechanismInfo;
  void* InitToken;
  void* InitPin;
  void* SetPin;
  Rv (*OpenSession)(Ulong slot, Ulong flags, void* application, void* notify, Handle* session);
  Rv (*CloseSession)(Handle session);
  void* CloseAllSessions;
  void* GetSessionInfo;
  void* GetOperationState;
  void* SetOperationState;
  Rv (*Login)(Handle session, Ulong user, const uint8_t* pin, Ulong length);
  void* Logout;
  void* CreateObject;
  void* CopyObject;
  void* DestroyObject;
  void* GetObjectSize;
  Rv (*GetAttributeValue)(Handle session, Handle object, AttributeValue*, Ulong count);
  void* SetAttributeValue;
  Rv (*FindObjectsInit)(Handle session, AttributeValue*, Ulong count);
  Rv (*FindObjects)(Handle session, Handle* objects, Ulong max, Ulong* count);
  Rv (*FindObjectsFinal)(Handle session);
  Rv (*EncryptInit)(Handle session, Mechanism*, Handle key);
  Rv (*Encrypt)(Handle session, uint8_t* data, Ulong length, uint8_t* out, Ulong* out_length);
  void* EncryptUpdate;
  void* EncryptFinal;
  Rv (*DecryptInit)(Handle session, Mechanism*, Handle key);
  Rv (*Decrypt)(Handle session, uint8_t* data, Ulong length, uint8_t* out, Ulong* out_length);
  void* DecryptUpdate;
  void* DecryptFinal;
  void* DigestInit;
  void* Digest;
  void* DigestUpdate;
  void* DigestKey;
  void* DigestFinal;
  void* SignInit;
  void* Sign;
  void* SignUpdate;
  void* SignFinal;
  void* SignRecoverInit;
  void* SignRecover;
  void* VerifyInit;
  void* Verify;
  void* VerifyUpdate;
  void* VerifyFinal;
  void* VerifyRecoverInit;
  void* VerifyRecover;
  void* DigestEncryptUpdate;
  void* DecryptDigestUpdate;
  void* SignEncryptUpdate;
  void* DecryptVerifyUpdate;
  Rv (*GenerateKey)(Handle session, Mechanism*, AttributeValue*, Ulong count, Handle* key);
};

}  // namespace caisson::cryptoki

#endif  // CAISSON_SHARED_PKCS11_CRYPTOKI_H_
