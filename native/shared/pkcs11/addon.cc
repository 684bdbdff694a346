// Exports `useToken(request)`. Arguments were checked by index.ts; the module is called on one of libuv's worker threads.
#include <napi.h>

#include <algorithm>

#include "token.h"

namespace {

std::vector<uint8_t> Bytes(const Napi::Object& object, const char* name) {
  const auto array = object.Get(name).As<Napi::Uint8Array>();
  return std::vector<uint8_t>(array.Data(), array.Data() + array.ByteLength());
}

std::string Text(const Napi::Object& object, const char* name) {
  return object.Get(name).As<Napi::String>().Utf8Value();
}

void Wipe(void* memory, size_t length) {
  volatile uint8_t* bytes = static_cast<volatile uint8_t*>(memory);
  for (size_t index = 0; index < length; index++) bytes[index] = 0;
}

class TokenJob final : public Napi::AsyncWorker {
 public:
  TokenJob(Napi::Env env, caisson::TokenRequest request)
      : Napi::AsyncWorker(env),
        deferred_(Napi::Promise::Deferred::New(env)),
        request_(std::move(request)) {}

  Napi::Promise Start() {
    Queue();
    return deferred_.Promise();
  }

 protected:
  void Execute() override {
    outcome_ = caisson::UseToken(request_);
    Wipe(request_.key.pin.data(), request_.key.pin.size());
    Wipe(request_.data.data(), request_.data.size());
  }

  void OnOK() override {
    const auto env = Env();
    auto result = Napi::Object::New(env);
    result.Set("status", static_cast<int>(outcome_.status));
    result.Set("rv", static_cast<double>(outcome_.rv));
    result.Set("function", outcome_.function);
    result.Set("detail", outcome_.detail);
    auto bytes = Napi::Uint8Array::New(env, outcome_.bytes.size());
    std::copy(outcome_.bytes.begin(), outcome_.bytes.end(), bytes.Data());
    Wipe(outcome_.bytes.data(), outcome_.bytes.size());
    result.Set("bytes", bytes);
    deferred_.Resolve(result);
  }

 private:
  Napi::Promise::Deferred deferred_;
  caisson::TokenRequest request_;
  caisson::TokenOutcome outcome_;
};

Napi::Value UseToken(const Napi::CallbackInfo& info) {
  const auto object = info[0].As<Napi::Object>();
  caisson::TokenRequest request{
      {Text(object, "module"), Text(object, "token"), Text(object, "serial"), Text(object, "label"),
       Bytes(object, "id"), Text(object, "pin")},
      static_cast<caisson::TokenOperation>(object.Get("operation").As<Napi::Number>().Int32Value()),
      Bytes(object, "iv"),
      Bytes(object, "aad"),
      Bytes(object, "data"),
  };
  return (new TokenJob(info.Env(), std::move(request)))->Start();
}

Napi::Object Init(Napi::Env env, Napi::Object exports) {
  exports.Set("useToken", Napi::Function::New(env, UseToken));
  return exports;
}

}  // namespace

NODE_API_MODULE(pkcs11, Init)
