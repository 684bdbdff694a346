// Waits on the event loop until a descriptor is readable or writable. JavaScript: `new Poller(fd, (events) => …)`,
// `arm(events)` for one call of the function, `close()`. The descriptor stays the caller's and is closed after `close()`.
#pragma once

#include <napi.h>
#include <uv.h>

namespace caisson {

class Poller : public Napi::ObjectWrap<Poller> {
 public:
  static Napi::Function Define(Napi::Env env);
  explicit Poller(const Napi::CallbackInfo& info);
  ~Poller() override;
  Poller(const Poller&) = delete;
  Poller& operator=(const Poller&) = delete;

 private:
  // Outlives the Poller until libuv has let go of it.
  struct Handle {
    uv_poll_t poll;
    Poller* owner;
  };

  static void Ready(uv_poll_t* poll, int status, int events);
  void Arm(const Napi::CallbackInfo& info);
  void CloseFromScript(const Napi::CallbackInfo& info);
  void Close();

  Napi::FunctionReference callback_;
  Napi::AsyncContext context_;
  Handle* handle_ = nullptr;
};

}  // namespace caisson
