// Exports of the guest addon. Converts arguments and results, decides nothing: numbers are results or -errno, and
// `native/guest/index.ts` makes errors of them. What may block runs on a worker thread and returns a promise.
#include <napi.h>

#include <cerrno>
#include <functional>
#include <utility>

#include "cgroup_program.h"
#include "descriptors.h"
#include "device_mapper.h"
#include "network.h"
#include "poller.h"
#include "storage.h"
#include "system.h"

namespace caisson {
namespace {

// The most that one read returns, hence the most that one unread chunk occupies.
constexpr size_t kReadBytes = 65536;

class NumberWorker : public Napi::AsyncWorker {
 public:
  NumberWorker(Napi::Env env, std::function<int64_t()> work)
      : Napi::AsyncWorker(env), work_(std::move(work)), deferred_(Napi::Promise::Deferred::New(env)) {}
  static Napi::Value Run(Napi::Env env, std::function<int64_t()> work) {
    auto* worker = new NumberWorker(env, std::move(work));
    const Napi::Promise promise = worker->deferred_.Promise();
    worker->Queue();
    return promise;
  }
  void Execute() override { result_ = work_(); }
  void OnOK() override { deferred_.Resolve(Napi::Number::New(Env(), static_cast<double>(result_))); }

 private:
  std::function<int64_t()> work_;
  Napi::Promise::Deferred deferred_;
  int64_t result_ = 0;
};

class ReadInRootWorker : public Napi::AsyncWorker {
 public:
  ReadInRootWorker(Napi::Env env, std::string root, std::string path, size_t max_bytes)
      : Napi::AsyncWorker(env),
        root_(std::move(root)),
        path_(std::move(path)),
        max_bytes_(max_bytes),
        deferred_(Napi::Promise::Deferred::New(env)) {}
  [[nodiscard]] Napi::Promise Promise() const { return deferred_.Promise(); }
  void Execute() override { result_ = ReadInRoot(root_, path_, max_bytes_, content_); }
  void OnOK() override {
    if (result_ < 0) {
      deferred_.Resolve(Napi::Number::New(Env(), result_));
      return;
    }
    Napi::Uint8Array bytes = Napi::Uint8Array::New(Env(), content_.size());
    std::copy(content_.begin(), content_.end(), bytes.Data());
    deferred_.Resolve(bytes);
  }

 private:
  std::string root_;
  std::string path_;
  size_t max_bytes_;
  std::vector<uint8_t> content_;
  Napi::Promise::Deferred deferred_;
  int result_ = 0;
};

std::string Text(const Napi::CallbackInfo& info, size_t index) { return info[index].As<Napi::String>().Utf8Value(); }
int Int(const Napi::CallbackInfo& info, size_t index) { return info[index].As<Napi::Number>().Int32Value(); }
uint32_t Unsigned(const Napi::CallbackInfo& info, size_t index) {
  return info[index].As<Napi::Number>().Uint32Value();
}
int64_t Long(const Napi::CallbackInfo& info, size_t index) { return info[index].As<Napi::Number>().Int64Value(); }
bool Flag(const Napi::CallbackInfo& info, size_t index) { return info[index].As<Napi::Boolean>().Value(); }
std::vector<uint8_t> Bytes(const Napi::CallbackInfo& info, size_t index) {
  const auto array = info[index].As<Napi::Uint8Array>();
  return {array.Data(), array.Data() + array.ByteLength()};
}

Napi::Value Result(const Napi::CallbackInfo& info, int64_t result) {
  return Napi::Number::New(info.Env(), static_cast<double>(result));
}

Napi::Value ReadChunk(const Napi::CallbackInfo& info) {
  static thread_local uint8_t buffer[kReadBytes];
  const int64_t got = Read(Int(info, 0), buffer, sizeof(buffer));
  if (got < 0) return Result(info, got);
  Napi::Uint8Array bytes = Napi::Uint8Array::New(info.Env(), static_cast<size_t>(got));
  std::copy(buffer, buffer + got, bytes.Data());
  return bytes;
}

Napi::Value WriteChunk(const Napi::CallbackInfo& info) {
  const auto bytes = info[1].As<Napi::Uint8Array>();
  const size_t offset = Unsigned(info, 2);
  if (offset > bytes.ByteLength()) return Result(info, -EINVAL);
  return Result(info, Write(Int(info, 0), bytes.Data() + offset, bytes.ByteLength() - offset));
}

Napi::Value MakePipeEnds(const Napi::CallbackInfo& info) {
  Pipe pipe{};
  const int result = MakePipe(pipe, Flag(info, 0), Flag(info, 1));
  if (result < 0) return Result(info, result);
  Napi::Array ends = Napi::Array::New(info.Env(), 2);
  ends.Set(0U, Napi::Number::New(info.Env(), pipe.read_end));
  ends.Set(1U, Napi::Number::New(info.Env(), pipe.write_end));
  return ends;
}

Napi::Value ReadBelow(const Napi::CallbackInfo& info) {
  auto* worker = new ReadInRootWorker(info.Env(), Text(info, 0), Text(info, 1), Unsigned(info, 2));
  const Napi::Promise promise = worker->Promise();
  worker->Queue();
  return promise;
}

using Info = Napi::CallbackInfo;

template <typename Work>
Napi::Value OnThread(const Info& info, Work work) {
  return NumberWorker::Run(info.Env(), std::move(work));
}

void Export(Napi::Env env, Napi::Object& exports, const char* name, Napi::Value (*function)(const Info&)) {
  exports.Set(name, Napi::Function::New(env, function, name));
}

void ExportDescriptors(Napi::Env env, Napi::Object& exports) {
  Export(env, exports, "vsockListen", [](const Info& i) { return Result(i, VsockListen(Unsigned(i, 0), Int(i, 1))); });
  Export(env, exports, "unixListen", [](const Info& i) { return Result(i, UnixListen(Text(i, 0))); });
  Export(env, exports, "accept", [](const Info& i) { return Result(i, Accept(Int(i, 0))); });
  Export(env, exports, "receiveDescriptor", [](const Info& i) { return Result(i, ReceiveDescriptor(Int(i, 0))); });
  Export(env, exports, "read", ReadChunk);
  Export(env, exports, "write", WriteChunk);
  Export(env, exports, "shutdownWrite", [](const Info& i) { return Result(i, ShutdownWrite(Int(i, 0))); });
  Export(env, exports, "pipe", MakePipeEnds);
  Export(env, exports, "setWindowSize", [](const Info& i) {
    const auto columns = static_cast<uint16_t>(Unsigned(i, 1));
    return Result(i, SetWindowSize(Int(i, 0), columns, static_cast<uint16_t>(Unsigned(i, 2))));
  });
  Export(env, exports, "openNull", [](const Info& i) { return Result(i, OpenNull()); });
  Export(env, exports, "close", [](const Info& i) { return Result(i, Close(Int(i, 0))); });
}

void ExportStorage(Napi::Env env, Napi::Object& exports) {
  Export(env, exports, "mount", [](const Info& i) {
    return OnThread(i, [source = Text(i, 0), target = Text(i, 1), type = Text(i, 2), flags = Long(i, 3),
                        data = Text(i, 4)] { return Mount(source, target, type, static_cast<uint64_t>(flags), data); });
  });
  Export(env, exports, "unmount", [](const Info& i) {
    return OnThread(i, [target = Text(i, 0), flags = Int(i, 1)] { return Unmount(target, flags); });
  });
  Export(env, exports, "bindInRoot", [](const Info& i) {
    return OnThread(i, [root = Text(i, 0), path = Text(i, 1), target = Text(i, 2), mode = Unsigned(i, 3),
                        gid = Unsigned(i, 4)] { return BindInRoot(root, path, target, mode, gid); });
  });
  Export(env, exports, "attachLoop", [](const Info& i) {
    return OnThread(i, [file = Text(i, 0), read_only = Flag(i, 1), direct = Flag(i, 2)] {
      return AttachLoop(file, read_only, direct);
    });
  });
  Export(env, exports, "detachLoop", [](const Info& i) {
    return OnThread(i, [device = Text(i, 0)] { return DetachLoop(device); });
  });
  Export(env, exports, "createMapped", [](const Info& i) {
    return OnThread(i, [name = Text(i, 0), target = Text(i, 1), parameters = Text(i, 2), sectors = Long(i, 3),
                        read_only = Flag(i, 4)] {
      return CreateMapped(name, target, parameters, static_cast<uint64_t>(sectors), read_only);
    });
  });
  Export(env, exports, "createScratch", [](const Info& i) {
    return OnThread(i, [name = Text(i, 0), device = Text(i, 1)] { return CreateScratch(name, device); });
  });
  Export(env, exports, "createCrypt", [](const Info& i) {
    return OnThread(i, [name = Text(i, 0), device = Text(i, 1), key = Bytes(i, 2), offset = Long(i, 3),
                        sectors = Long(i, 4), sector_bytes = Unsigned(i, 5)]() mutable {
      return CreateCrypt(name, device, std::move(key), static_cast<uint64_t>(offset), static_cast<uint64_t>(sectors),
                         sector_bytes);
    });
  });
  Export(env, exports, "removeMapped", [](const Info& i) {
    return OnThread(i, [name = Text(i, 0)] { return RemoveMapped(name); });
  });
  Export(env, exports, "blockDeviceSize", [](const Info& i) {
    return OnThread(i, [path = Text(i, 0)] { return BlockDeviceSize(path); });
  });
}

void ExportNetwork(Napi::Env env, Napi::Object& exports) {
  Export(env, exports, "linkByMac", [](const Info& i) {
    const std::vector<uint8_t> bytes = Bytes(i, 0);
    std::array<uint8_t, 6> mac{};
    if (bytes.size() != mac.size()) return OnThread(i, [] { return -EINVAL; });
    std::copy(bytes.begin(), bytes.end(), mac.begin());
    return OnThread(i, [mac] { return LinkByMac(mac); });
  });
  Export(env, exports, "linkUp", [](const Info& i) {
    return OnThread(i, [index = Int(i, 0), mtu = Unsigned(i, 1)] { return LinkUp(index, mtu); });
  });
  Export(env, exports, "addAddress", [](const Info& i) {
    return OnThread(i, [index = Int(i, 0), address = Bytes(i, 1), prefix = static_cast<uint8_t>(Unsigned(i, 2))] {
      return AddAddress(index, address, prefix);
    });
  });
  Export(env, exports, "addGateway", [](const Info& i) {
    return OnThread(i, [index = Int(i, 0), gateway = Bytes(i, 1)] { return AddGateway(index, gateway); });
  });
  Export(env, exports, "attachCgroupProgram", [](const Info& i) {
    return OnThread(i, [group = Text(i, 0), program = Bytes(i, 1), type = Unsigned(i, 2), attach = Unsigned(i, 3)] {
      return AttachCgroupProgram(group, program, type, attach);
    });
  });
  Export(env, exports, "addRoute", [](const Info& i) {
    return OnThread(i, [index = Int(i, 0), network = Bytes(i, 1), prefix = static_cast<uint8_t>(Int(i, 2)),
                        gateway = Bytes(i, 3)] { return AddRoute(index, network, prefix, gateway); });
  });
  Export(env, exports, "addNeighbour", [](const Info& i) {
    const std::vector<uint8_t> bytes = Bytes(i, 2);
    if (bytes.size() != 6) return OnThread(i, [] { return -EINVAL; });
    std::array<uint8_t, 6> mac{};
    std::copy(bytes.begin(), bytes.end(), mac.begin());
    return OnThread(i, [index = Int(i, 0), address = Bytes(i, 1), mac] { return AddNeighbour(index, address, mac); });
  });
}

void ExportSystem(Napi::Env env, Napi::Object& exports) {
  Export(env, exports, "becomeSubreaper", [](const Info& i) { return Result(i, BecomeSubreaper()); });
  Export(env, exports, "openProcess", [](const Info& i) { return Result(i, OpenProcess(Int(i, 0))); });
  Export(env, exports, "takeExit", [](const Info& i) { return Result(i, TakeExit(Int(i, 0))); });
  Export(env, exports, "signalProcess", [](const Info& i) { return Result(i, SignalProcess(Int(i, 0), Int(i, 1))); });
  Export(env, exports, "readInRoot", ReadBelow);
  Export(env, exports, "setHostname", [](const Info& i) { return Result(i, SetHostname(Text(i, 0))); });
  Export(env, exports, "setWallClock", [](const Info& i) { return Result(i, SetWallClock(Long(i, 0))); });
  Export(env, exports, "powerOff", [](const Info& i) { return OnThread(i, [] { return PowerOff(); }); });
}

Napi::Object Init(Napi::Env env, Napi::Object exports) {
  exports.Set("Poller", Poller::Define(env));
  ExportDescriptors(env, exports);
  ExportStorage(env, exports);
  ExportNetwork(env, exports);
  ExportSystem(env, exports);
  return exports;
}

}  // namespace
}  // namespace caisson

namespace {
Napi::Object InitModule(Napi::Env env, Napi::Object exports) { return caisson::Init(env, exports); }
}  // namespace

NODE_API_MODULE(guest, InitModule)
