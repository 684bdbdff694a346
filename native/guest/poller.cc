#include "poller.h"

namespace caisson {

Napi::Function Poller::Define(Napi::Env env) {
  return DefineClass(env, "Poller",
                     {InstanceMethod<&Poller::Arm>("arm"), InstanceMethod<&Poller::CloseFromScript>("close")});
}

Poller::Poller(const Napi::CallbackInfo& info)
    : Napi::ObjectWrap<Poller>(info), context_(info.Env(), "caisson:poller") {
  uv_loop_s* loop = nullptr;
  if (napi_get_uv_event_loop(info.Env(), &loop) != napi_ok) {
    Napi::Error::New(info.Env(), "no event loop").ThrowAsJavaScriptException();
    return;
  }
  auto* handle = new Handle{};
  handle->owner = this;
  // Also sets O_NONBLOCK.
  const int result = uv_poll_init(loop, &handle->poll, info[0].As<Napi::Number>().Int32Value());
  if (result != 0) {
    delete handle;
    Napi::Error::New(info.Env(), uv_strerror(result)).ThrowAsJavaScriptException();
    return;
  }
  handle->poll.data = handle;
  handle_ = handle;
  callback_ = Napi::Persistent(info[1].As<Napi::Function>());
}

Poller::~Poller() { Close(); }

void Poller::Arm(const Napi::CallbackInfo& info) {
  if (handle_ == nullptr) return;
  // A pending wait keeps this object alive: libuv points at it.
  Ref();
  if (uv_is_active(reinterpret_cast<uv_handle_t*>(&handle_->poll)) != 0) Unref();
  const int result = uv_poll_start(&handle_->poll, info[0].As<Napi::Number>().Int32Value(), Ready);
  if (result == 0) return;
  Unref();
  Napi::Error::New(info.Env(), uv_strerror(result)).ThrowAsJavaScriptException();
}

void Poller::Ready(uv_poll_t* poll, int status, int events) {
  Poller* self = static_cast<Handle*>(poll->data)->owner;
  if (self == nullptr) return;
  uv_poll_stop(poll);
  const Napi::Env env = self->Env();
  const Napi::HandleScope scope(env);
  const Napi::Value receiver = self->Value();
  self->Unref();
  // A broken descriptor is ready for both: the read or write that follows tells the error.
  const int ready = status < 0 ? UV_READABLE | UV_WRITABLE : events;
  self->callback_.MakeCallback(receiver, {Napi::Number::New(env, ready)}, self->context_);
}

void Poller::CloseFromScript(const Napi::CallbackInfo&) { Close(); }

void Poller::Close() {
  if (handle_ == nullptr) return;
  Handle* handle = handle_;
  handle_ = nullptr;
  handle->owner = nullptr;
  auto* base = reinterpret_cast<uv_handle_t*>(&handle->poll);
  if (uv_is_active(base) != 0) {
    uv_poll_stop(&handle->poll);
    Unref();
  }
  uv_close(base, [](uv_handle_t* closed) { delete static_cast<Handle*>(closed->data); });
}

}  // namespace caisson
