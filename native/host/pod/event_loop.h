// One epoll and a list of deadlines: all waiting in this process happens here.
#pragma once

#include <cstdint>
#include <set>
#include <unordered_map>
#include <utility>

#include "unique_fd.h"

namespace caisson::pod {

// Receives what a Watch or Timer was made for. May delete itself, and with it its Watch and Timer, while it is called.
class EventHandler {
 public:
  virtual void OnReady(uint32_t events) = 0;
  virtual void OnTimer() {}

 protected:
  ~EventHandler() = default;
};

class EventLoop {
 public:
  EventLoop();

  // Waits for events, at most until the next deadline, and delivers them. Returns at once when `busy`.
  void RunOnce(bool busy);

 private:
  friend class Watch;
  friend class Timer;

  UniqueFd epoll_;
  uint64_t next_token_ = 1;
  // By token and not by pointer: an event may arrive for a watch that an earlier event of the same batch has ended.
  std::unordered_map<uint64_t, EventHandler*> handlers_;
  std::set<std::pair<uint64_t, class Timer*>> deadlines_;
};

// A descriptor's registration, ended by destruction; must go before the descriptor is closed.
class Watch {
 public:
  explicit Watch(EventLoop& loop) : loop_(loop) {}
  ~Watch() { Stop(); }
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

  // False when the descriptor cannot be waited for (a regular file, for instance).
  bool Start(int fd, uint32_t events, EventHandler& handler);
  void Change(uint32_t events);
  void Stop();

 private:
  EventLoop& loop_;
  int fd_ = -1;
  uint64_t token_ = 0;
};

// One deadline; arming again replaces it.
class Timer {
 public:
  Timer(EventLoop& loop, EventHandler& handler) : loop_(loop), handler_(handler) {}
  ~Timer() { Disarm(); }
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

  void Arm(uint64_t delay_ms);
  void Disarm();

 private:
  friend class EventLoop;

  EventLoop& loop_;
  EventHandler& handler_;
  uint64_t deadline_ms_ = 0;
};

}  // namespace caisson::pod
