// One of the device's two rings: the queue and the descriptors that wake either side.
#pragma once

#include <cstdint>

#include "unique_fd.h"
#include "virtqueue.h"

namespace caisson::pod {

struct Ring {
  Virtqueue queue;
  // CALL may be replaced at any time, also while the ring is stopped, so the descriptors live apart from its state.
  UniqueFd kick, call, error;
  uint32_t size = 0;
  uint16_t base = 0;
  RingAddresses addresses;
  bool addresses_set = false;
  bool enabled = false;

  bool CanRun() const { return queue.attached() && kick && enabled; }

  void InterruptIfWanted() {
    if (queue.TakeInterruptDecision()) Signal(call);
  }
  void ReportBroken() { Signal(error); }

 private:
  static void Signal(const UniqueFd& event_fd) {
    const uint64_t one = 1;
    if (event_fd) [[maybe_unused]] const ssize_t written = write(event_fd.get(), &one, sizeof one);
  }
};

}  // namespace caisson::pod
