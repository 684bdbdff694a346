// Exports: `Layer` (write, finish, cancel), `appendVerity`, `verityRoot` and `returnMemory`. Arguments were checked by index.ts; everything that
// computes or touches a file runs on libuv's worker threads. Results are plain objects with a numeric status.
#include <napi.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "layer.h"
#include "memory.h"

namespace {

using caisson::Digest;
using caisson::LayerResult;
using caisson::LayerStatus;

std::vector<uint8_t> Bytes(const Napi::Value& value) {
  const auto array = value.As<Napi::Uint8Array>();
  return std::vector<uint8_t>(array.Data(), array.Data() + array.ByteLength());
}

Napi::Value Copy(Napi::Env env, const Digest& digest) {
  auto array = Napi::Uint8Array::New(env, digest.size());
  std::copy(digest.begin(), digest.end(), array.Data());
  return array;
}

Napi::Object Status(Napi::Env env, LayerStatus status, int error) {
  auto object = Napi::Object::New(env);
  object.Set("status", static_cast<int>(status));
  object.Set("errno", error);
  return object;
}

Napi::Object Status(Napi::Env env, LayerStatus status, const caisson::Layer& layer) {
  auto object = Status(env, status, layer.error());
  if (status == LayerStatus::kEntry) {
    object.Set("problem", layer.problem());
    // Bytes: names in a tar need not be UTF-8.
    object.Set("entry", Napi::Buffer<uint8_t>::Copy(env, reinterpret_cast<const uint8_t*>(layer.problem_entry().data()),
                                                    layer.problem_entry().size()));
  }
  return object;
}

void SetTree(Napi::Env env, Napi::Object object, const caisson::VerityTree& tree) {
  object.Set("dataBlocks", static_cast<double>(tree.data_blocks));
  object.Set("hashOffset", static_cast<double>(tree.hash_offset));
  object.Set("rootHash", Copy(env, tree.root_hash));
}

// A call that ends in a promise; `Execute` runs on a worker thread and touches no JavaScript.
class Job : public Napi::AsyncWorker {
 public:
  explicit Job(Napi::Env env) : Napi::AsyncWorker(env), deferred_(Napi::Promise::Deferred::New(env)) {}
  Napi::Promise Start() {
    Queue();
    return deferred_.Promise();
  }

 protected:
  virtual Napi::Object Result(Napi::Env env) = 0;
  void OnOK() override { deferred_.Resolve(Result(Env())); }
  void OnError(const Napi::Error& error) override { deferred_.Reject(error.Value()); }

 private:
  Napi::Promise::Deferred deferred_;
};

// The native layer outlives its JavaScript object while a job runs.
using SharedLayer = std::shared_ptr<caisson::Layer>;

class WriteJob final : public Job {
 public:
  WriteJob(Napi::Env env, SharedLayer layer, const Napi::Uint8Array& input)
      : Job(env), layer_(std::move(layer)), data_(input.Data()), length_(input.ByteLength()) {
    // The bytes stay where they are: the reference keeps them, and index.ts writes to them no more until we are done.
    input_ = Napi::Persistent(input.As<Napi::Object>());
  }

  void Execute() override { status_ = layer_->Write(data_, length_); }

 protected:
  Napi::Object Result(Napi::Env env) override {
    auto object = Status(env, status_, *layer_);
    object.Set("tarBytes", static_cast<double>(layer_->tar_bytes()));
    return object;
  }

 private:
  SharedLayer layer_;
  Napi::ObjectReference input_;
  const uint8_t* data_;
  size_t length_;
  LayerStatus status_ = LayerStatus::kOk;
};

class FinishJob final : public Job {
 public:
  FinishJob(Napi::Env env, SharedLayer layer) : Job(env), layer_(std::move(layer)) {}

  void Execute() override { status_ = layer_->Finish(&result_); }

 protected:
  Napi::Object Result(Napi::Env env) override {
    auto object = Status(env, status_, *layer_);
    object.Set("compressedDigest", Copy(env, result_.compressed_digest));
    object.Set("compressedBytes", static_cast<double>(result_.compressed_bytes));
    object.Set("plainDigest", Copy(env, result_.plain_digest));
    object.Set("diffId", Copy(env, result_.diff_id));
    object.Set("tarBytes", static_cast<double>(result_.tar_bytes));
    SetTree(env, object, result_.tree);
    return object;
  }

 private:
  SharedLayer layer_;
  LayerResult result_;
  LayerStatus status_ = LayerStatus::kOk;
};

class VerityJob final : public Job {
 public:
  // Without `bytes` a tree is appended.
  VerityJob(Napi::Env env, std::string path, size_t data_block, std::vector<uint8_t> salt, std::optional<uint64_t> bytes)
      : Job(env), path_(std::move(path)), data_block_(data_block), salt_(std::move(salt)), bytes_(bytes) {}

  void Execute() override {
    status_ = bytes_ ? caisson::VerityRoot(path_, *bytes_, data_block_, salt_, &tree_, &error_)
                     : caisson::AppendVerity(path_, data_block_, salt_, &tree_, &error_);
  }

 protected:
  Napi::Object Result(Napi::Env env) override {
    auto object = Status(env, status_, error_);
    SetTree(env, object, tree_);
    return object;
  }

 private:
  std::string path_;
  size_t data_block_;
  std::vector<uint8_t> salt_;
  std::optional<uint64_t> bytes_;
  caisson::VerityTree tree_;
  int error_ = 0;
  LayerStatus status_ = LayerStatus::kOk;
};

class LayerObject final : public Napi::ObjectWrap<LayerObject> {
 public:
  static Napi::Function Define(Napi::Env env) {
    return DefineClass(env, "Layer",
                       {
                           InstanceMethod<&LayerObject::Begin>("begin"),
                           InstanceMethod<&LayerObject::Write>("write"),
                           InstanceMethod<&LayerObject::Finish>("finish"),
                           InstanceMethod<&LayerObject::Cancel>("cancel"),
                       });
  }

  explicit LayerObject(const Napi::CallbackInfo& info)
      : Napi::ObjectWrap<LayerObject>(info), layer_(std::make_shared<caisson::Layer>()) {}

 private:
  // (path, catalogue, compression, salt, maxTarBytes, maxRatio, key, nonce, hmac): opens files only, so it may run on the
  // main thread. The last three may be empty.
  Napi::Value Begin(const Napi::CallbackInfo& info) {
    caisson::LayerOptions options;
    options.path = info[0].As<Napi::String>();
    options.catalogue = info[1].As<Napi::String>();
    options.compression = info[2].As<Napi::String>();
    options.salt = Bytes(info[3]);
    options.max_tar_bytes = static_cast<uint64_t>(info[4].As<Napi::Number>().DoubleValue());
    options.max_ratio = static_cast<uint64_t>(info[5].As<Napi::Number>().DoubleValue());
    options.key = Bytes(info[6]);
    options.nonce = Bytes(info[7]);
    options.hmac = Bytes(info[8]);
    const LayerStatus status = layer_->Begin(options);
    return Status(info.Env(), status, layer_->error());
  }

  Napi::Value Write(const Napi::CallbackInfo& info) {
    return (new WriteJob(info.Env(), layer_, info[0].As<Napi::Uint8Array>()))->Start();
  }

  Napi::Value Finish(const Napi::CallbackInfo& info) { return (new FinishJob(info.Env(), layer_))->Start(); }

  // Lets go of the layer, whose files close with the job that still runs, if one does: waiting for the collector would
  // keep the disk space of a file that was removed. What is called afterwards finds a layer that was cancelled.
  void Cancel(const Napi::CallbackInfo&) {
    layer_->Cancel();
    layer_ = std::make_shared<caisson::Layer>();
    layer_->Cancel();
  }

  SharedLayer layer_;
};

Napi::Value AppendVerity(const Napi::CallbackInfo& info) {
  const std::string path = info[0].As<Napi::String>();
  const auto data_block = static_cast<size_t>(info[1].As<Napi::Number>().Uint32Value());
  return (new VerityJob(info.Env(), path, data_block, Bytes(info[2]), std::nullopt))->Start();
}

Napi::Value VerityRoot(const Napi::CallbackInfo& info) {
  const std::string path = info[0].As<Napi::String>();
  const auto data_block = static_cast<size_t>(info[1].As<Napi::Number>().Uint32Value());
  const auto bytes = static_cast<uint64_t>(info[3].As<Napi::Number>().DoubleValue());
  return (new VerityJob(info.Env(), path, data_block, Bytes(info[2]), bytes))->Start();
}

// At once: it takes less than a millisecond.
void ReturnMemory(const Napi::CallbackInfo&) { caisson::ReturnMemory(); }

Napi::Object Init(Napi::Env env, Napi::Object exports) {
  exports.Set("Layer", LayerObject::Define(env));
  exports.Set("appendVerity", Napi::Function::New(env, AppendVerity));
  exports.Set("verityRoot", Napi::Function::New(env, VerityRoot));
  exports.Set("returnMemory", Napi::Function::New(env, ReturnMemory));
  return exports;
}

}  // namespace

NODE_API_MODULE(shared, Init)
