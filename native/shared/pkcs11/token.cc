#include "token.h"

#include <dlfcn.h>

#include <map>
#include <mutex>
#include <string_view>

#include "cryptoki.h"

namespace caisson {

namespace {

using namespace cryptoki;

constexpr Ulong kMaxSlots = 256;
constexpr Ulong kTagBits = 128;
constexpr Ulong kTagBytes = kTagBits / 8;

TokenOutcome Fail(TokenStatus status, std::string detail = "") {
  TokenOutcome outcome;
  outcome.status = status;
  outcome.detail = std::move(detail);
  return outcome;
}

TokenOutcome Failed(const char* function, Rv rv) {
  TokenOutcome outcome;
  outcome.status = TokenStatus::kFailed;
  outcome.function = function;
  outcome.rv = rv;
  return outcome;
}

// Loaded modules by path; nullptr with a reason in `problem` when there is none.
Functions* Load(const std::string& path, TokenOutcome& problem) {
  static std::map<std::string, Functions*> modules;
  if (const auto known = modules.find(path); known != modules.end()) return known->second;
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* reason = dlerror();
    problem = Fail(TokenStatus::kModule, reason == nullptr ? "" : reason);
    return nullptr;
  }
  using GetFunctionList = Rv (*)(Functions**);
  const auto get = reinterpret_cast<GetFunctionList>(dlsym(library, "C_GetFunctionList"));
  Functions* functions = nullptr;
  if (get == nullptr || get(&functions) != kOk || functions == nullptr || functions->version.major < 2) {
    dlclose(library);
    problem = Fail(TokenStatus::kModule, "it is no PKCS #11 module");
    return nullptr;
  }
  InitializeArguments arguments{};
  arguments.flags = kOsLocking;
  const Rv rv = functions->Initialize(&arguments);
  if (rv != kOk && rv != kAlreadyInitialized) {
    dlclose(library);
    problem = Failed("C_Initialize", rv);
    return nullptr;
  }
  modules[path] = functions;
  return functions;
}

bool Matches(const uint8_t* field, size_t length, const std::string& wanted) {
  std::string_view text(reinterpret_cast<const char*>(field), length);
  text = text.substr(0, text.find_last_not_of(' ') + 1);
  return wanted.empty() || text == wanted;
}

TokenOutcome FindSlot(Functions* p11, const KeyAddress& key, Ulong& slot) {
  Ulong slots[kMaxSlots];
  Ulong count = kMaxSlots;
  if (const Rv rv = p11->GetSlotList(1, slots, &count); rv != kOk) return Failed("C_GetSlotList", rv);
  Ulong found = 0;
  for (Ulong index = 0; index < count; index++) {
    TokenInfo info{};
    // A token that was drawn out meanwhile is as good as none.
    if (p11->GetTokenInfo(slots[index], &info) != kOk) continue;
    if (!Matches(info.label, sizeof(info.label), key.token)) continue;
    if (!Matches(info.serial, sizeof(info.serial), key.serial)) continue;
    slot = slots[index];
    found++;
  }
  if (found == 1) return {};
  return Fail(found == 0 ? TokenStatus::kTokenNone : TokenStatus::kTokenMany);
}

class Session {
 public:
  explicit Session(Functions* p11) : p11_(p11) {}
  ~Session() {
    if (open_) p11_->CloseSession(handle_);
  }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  TokenOutcome Open(Ulong slot, bool writing, const std::string& pin) {
    const Ulong flags = kSerialSession | (writing ? kReadWriteSession : 0);
    if (const Rv rv = p11_->OpenSession(slot, flags, nullptr, nullptr, &handle_); rv != kOk) {
      return Failed("C_OpenSession", rv);
    }
    open_ = true;
    const Rv rv = p11_->Login(handle_, kUser, reinterpret_cast<const uint8_t*>(pin.data()), pin.size());
    return rv == kOk || rv == kUserAlreadyLoggedIn ? TokenOutcome{} : Failed("C_Login", rv);
  }

  Handle handle() const { return handle_; }

 private:
  Functions* p11_;
  Handle handle_ = 0;
  bool open_ = false;
};

AttributeValue Value(Attribute type, void* value, Ulong length) { return {type, value, length}; }

// What names the key: class, type, and label or id or both.
std::vector<AttributeValue> NameOf(KeyAddress& key, Ulong& object_class, Ulong& key_type) {
  std::vector<AttributeValue> name = {
      Value(kClass, &object_class, sizeof(object_class)),
      Value(kKeyType, &key_type, sizeof(key_type)),
  };
  if (!key.label.empty()) name.push_back(Value(kLabel, key.label.data(), key.label.size()));
  if (!key.id.empty()) name.push_back(Value(kId, key.id.data(), key.id.size()));
  return name;
}

TokenOutcome FindKey(Functions* p11, Handle session, std::vector<AttributeValue> name, Handle& key) {
  if (const Rv rv = p11->FindObjectsInit(session, name.data(), name.size()); rv != kOk) {
    return Failed("C_FindObjectsInit", rv);
  }
  Handle found[2];
  Ulong count = 0;
  const Rv rv = p11->FindObjects(session, found, 2, &count);
  p11->FindObjectsFinal(session);
  if (rv != kOk) return Failed("C_FindObjects", rv);
  if (count != 1) return Fail(count == 0 ? TokenStatus::kKeyNone : TokenStatus::kKeyMany);
  key = found[0];
  return {};
}

TokenOutcome CheckStays(Functions* p11, Handle session, Handle key) {
  uint8_t sensitive = 0;
  uint8_t extractable = 1;
  AttributeValue asked[] = {Value(kSensitive, &sensitive, 1), Value(kExtractable, &extractable, 1)};
  if (const Rv rv = p11->GetAttributeValue(session, key, asked, 2); rv != kOk) {
    return Failed("C_GetAttributeValue", rv);
  }
  return sensitive != 0 && extractable == 0 ? TokenOutcome{} : Fail(TokenStatus::kExtractable);
}

TokenOutcome Generate(Functions* p11, Handle session, std::vector<AttributeValue> attributes) {
  uint8_t yes = 1;
  uint8_t no = 0;
  Ulong bytes = 32;
  for (const auto type : {kToken, kPrivate, kSensitive, kEncrypt, kDecrypt}) attributes.push_back(Value(type, &yes, 1));
  attributes.push_back(Value(kExtractable, &no, 1));
  attributes.push_back(Value(kValueLength, &bytes, sizeof(bytes)));
  Mechanism mechanism{kMechanismAesKeyGen, nullptr, 0};
  Handle key = 0;
  const Rv rv = p11->GenerateKey(session, &mechanism, attributes.data(), attributes.size(), &key);
  return rv == kOk ? TokenOutcome{} : Failed("C_GenerateKey", rv);
}

TokenOutcome Crypt(Functions* p11, Handle session, Handle key, TokenRequest& request) {
  GcmParameters parameters{request.iv.data(),  request.iv.size(),  8 * request.iv.size(),
                           request.aad.data(), request.aad.size(), kTagBits};
  Mechanism mechanism{kMechanismAesGcm, &parameters, sizeof(parameters)};
  const bool encrypting = request.operation == TokenOperation::kEncrypt;
  const Rv started = (encrypting ? p11->EncryptInit : p11->DecryptInit)(session, &mechanism, key);
  if (started != kOk) return Failed(encrypting ? "C_EncryptInit" : "C_DecryptInit", started);
  TokenOutcome outcome;
  outcome.bytes.resize(request.data.size() + kTagBytes);
  Ulong length = outcome.bytes.size();
  const Rv rv = (encrypting ? p11->Encrypt : p11->Decrypt)(session, request.data.data(), request.data.size(),
                                                           outcome.bytes.data(), &length);
  if (rv != kOk || length > outcome.bytes.size()) return Failed(encrypting ? "C_Encrypt" : "C_Decrypt", rv);
  outcome.bytes.resize(length);
  return outcome;
}

}  // namespace

TokenOutcome UseToken(TokenRequest& request) {
  static std::mutex one_at_a_time;
  const std::lock_guard<std::mutex> guard(one_at_a_time);
  TokenOutcome problem;
  Functions* p11 = Load(request.key.module, problem);
  if (p11 == nullptr) return problem;
  Ulong slot = 0;
  if (auto outcome = FindSlot(p11, request.key, slot); outcome.status != TokenStatus::kOk) return outcome;
  const bool generating = request.operation == TokenOperation::kGenerate;
  Session session(p11);
  if (auto outcome = session.Open(slot, generating, request.key.pin); outcome.status != TokenStatus::kOk) {
    return outcome;
  }
  Ulong object_class = kClassSecretKey;
  Ulong key_type = kKeyTypeAes;
  const auto name = NameOf(request.key, object_class, key_type);
  Handle key = 0;
  auto found = FindKey(p11, session.handle(), name, key);
  if (generating) {
    if (found.status == TokenStatus::kKeyNone) return Generate(p11, session.handle(), name);
    return found.status == TokenStatus::kOk ? Fail(TokenStatus::kKeyMany) : found;
  }
  if (found.status != TokenStatus::kOk) return found;
  if (auto outcome = CheckStays(p11, session.handle(), key); outcome.status != TokenStatus::kOk) return outcome;
  return Crypt(p11, session.handle(), key, request);
}

}  // namespace caisson
