#include "event_loop.h"

#include <sys/epoll.h>
#include <time.h>

#include <algorithm>
#include <climits>

namespace caisson::pod {
namespace {

constexpr int kEventsPerRound = 64;

uint64_t NowMs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1000 + static_cast<uint64_t>(now.tv_nsec) / 1'000'000;
}

}  // namespace

EventLoop::EventLoop() : epoll_(epoll_create1(EPOLL_CLOEXEC)) {}

void EventLoop::RunOnce(bool busy) {
  int timeout_ms = -1;
  if (busy) {
    timeout_ms = 0;
  } else if (!deadlines_.empty()) {
    const uint64_t now = NowMs(), deadline = deadlines_.begin()->first;
    timeout_ms = deadline <= now ? 0 : static_cast<int>(std::min<uint64_t>(deadline - now, INT_MAX));
  }
  epoll_event events[kEventsPerRound];
  const int count = epoll_wait(epoll_.get(), events, kEventsPerRound, timeout_ms);
  for (int index = 0; index < count; ++index) {
    const auto handler = handlers_.find(events[index].data.u64);
    if (handler != handlers_.end()) handler->second->OnReady(events[index].events);
  }
  if (deadlines_.empty()) return;
  const uint64_t now = NowMs();
  while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
    Timer* timer = deadlines_.begin()->second;
    timer->Disarm();
    timer->handler_.OnTimer();
  }
}

bool Watch::Start(int fd, uint32_t events, EventHandler& handler) {
  Stop();
  epoll_event event{.events = events, .data = {.u64 = loop_.next_token_}};
  if (epoll_ctl(loop_.epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) return false;
  fd_ = fd;
  token_ = loop_.next_token_++;
  loop_.handlers_.emplace(token_, &handler);
  return true;
}

void Watch::Change(uint32_t events) {
  epoll_event event{.events = events, .data = {.u64 = token_}};
  epoll_ctl(loop_.epoll_.get(), EPOLL_CTL_MOD, fd_, &event);
}

void Watch::Stop() {
  if (fd_ < 0) return;
  epoll_ctl(loop_.epoll_.get(), EPOLL_CTL_DEL, fd_, nullptr);
  loop_.handlers_.erase(token_);
  fd_ = -1;
}

void Timer::Arm(uint64_t delay_ms) {
  Disarm();
  deadline_ms_ = NowMs() + delay_ms;
  loop_.deadlines_.emplace(deadline_ms_, this);
}

void Timer::Disarm() {
  if (deadline_ms_ == 0) return;
  loop_.deadlines_.erase({deadline_ms_, this});
  deadline_ms_ = 0;
}

}  // namespace caisson::pod
