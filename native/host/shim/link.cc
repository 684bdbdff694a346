#include "link.h"

#include <utility>

namespace caisson::shim {
namespace {

// Requests that wait for an answer; containerd sends a handful of a few kilobytes.
constexpr size_t kMaxUnansweredBytes = 16 * 1024 * 1024;

}  // namespace

Link::Link(pod::EventLoop& loop, uint64_t number, std::string hello)
    : client_(loop, *this), daemon_(loop, *this), number_(number), hello_(std::move(hello)) {}

void Link::ConnectDaemon(pod::UniqueFd fd) {
  from_daemon_ = FrameCutter();
  if (!daemon_.Open(std::move(fd))) return;
  daemon_.Send(hello_);
  // In the order of their ids: a server refuses ids that do not grow.
  for (const auto& [stream, request] : unanswered_) daemon_.Send(request);
}

void Link::OnBytes(Channel& channel, std::string_view bytes) {
  if (&channel == &client_) {
    from_client_.Append(bytes);
    TakeFromClient();
  } else {
    from_daemon_.Append(bytes);
    TakeFromDaemon();
  }
}

void Link::OnEnd(Channel& channel) {
  channel.Close();
  if (&channel == &client_) daemon_.Close();
}

void Link::TakeFromClient() {
  Frame frame;
  while (true) {
    switch (from_client_.Next(frame)) {
      case FrameCutter::Result::kIncomplete:
        return;
      case FrameCutter::Result::kTooLarge:
        return OnEnd(client_);
      case FrameCutter::Result::kFrame:
        break;
    }
    // The service has unary calls only; other frames are nothing that could be asked again.
    if (frame.type != kRequest) continue;
    std::string marked = MarkRequest(frame.bytes, std::to_string(number_) + "." + std::to_string(frame.stream));
    daemon_.Send(marked);
    unanswered_bytes_ += marked.size();
    unanswered_.insert_or_assign(frame.stream, std::move(marked));
    if (unanswered_bytes_ > kMaxUnansweredBytes) client_.Pause(true);
  }
}

void Link::TakeFromDaemon() {
  Frame frame;
  while (true) {
    switch (from_daemon_.Next(frame)) {
      case FrameCutter::Result::kIncomplete:
        return;
      case FrameCutter::Result::kTooLarge:
        return daemon_.Close();
      case FrameCutter::Result::kFrame:
        break;
    }
    if (frame.type == kResponse) {
      const auto asked = unanswered_.find(frame.stream);
      if (asked == unanswered_.end()) continue;
      unanswered_bytes_ -= asked->second.size();
      unanswered_.erase(asked);
      if (unanswered_bytes_ <= kMaxUnansweredBytes) client_.Pause(false);
    }
    client_.Send(frame.bytes);
  }
}

}  // namespace caisson::shim
