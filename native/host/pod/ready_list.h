// Connections that have a packet for the guest, in turn. Intrusive, so that one that ends leaves no stale entry behind
// and the list never outgrows the connections.
#pragma once

#include "connection.h"

namespace caisson::pod {

class ReadyList {
 public:
  ReadyList() = default;
  ReadyList(const ReadyList&) = delete;
  ReadyList& operator=(const ReadyList&) = delete;

  bool empty() const { return first_ == nullptr; }

  // Does nothing when it is listed already.
  void Append(Connection& connection) {
    if (Contains(connection)) return;
    connection.ready_previous = last_;
    (last_ == nullptr ? first_ : last_->ready_next) = &connection;
    last_ = &connection;
  }

  Connection& TakeFirst() {
    Connection& connection = *first_;
    Remove(connection);
    return connection;
  }

  void Remove(Connection& connection) {
    if (!Contains(connection)) return;
    (connection.ready_previous == nullptr ? first_ : connection.ready_previous->ready_next) = connection.ready_next;
    (connection.ready_next == nullptr ? last_ : connection.ready_next->ready_previous) = connection.ready_previous;
    connection.ready_previous = connection.ready_next = nullptr;
  }

 private:
  bool Contains(const Connection& connection) const {
    return connection.ready_previous != nullptr || first_ == &connection;
  }

  Connection* first_ = nullptr;
  Connection* last_ = nullptr;
};

}  // namespace caisson::pod
