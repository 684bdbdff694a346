#include "network.h"

#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace caisson {
namespace {

// A request with room for the few attributes used here.
class Message {
 public:
  Message(uint16_t type, uint16_t flags, size_t body_bytes) noexcept {
    header()->nlmsg_len = static_cast<uint32_t>(NLMSG_LENGTH(body_bytes));
    header()->nlmsg_type = type;
    header()->nlmsg_flags = static_cast<uint16_t>(NLM_F_REQUEST | flags);
  }
  [[nodiscard]] nlmsghdr* header() noexcept { return reinterpret_cast<nlmsghdr*>(bytes_); }
  template <typename Body>
  [[nodiscard]] Body* body() noexcept {
    return static_cast<Body*>(NLMSG_DATA(header()));
  }
  void Attribute(uint16_t type, const void* value, size_t length) noexcept {
    const size_t offset = NLMSG_ALIGN(header()->nlmsg_len);
    auto* attribute = reinterpret_cast<rtattr*>(bytes_ + offset);
    attribute->rta_type = type;
    attribute->rta_len = static_cast<uint16_t>(RTA_LENGTH(length));
    std::memcpy(RTA_DATA(attribute), value, length);
    header()->nlmsg_len = static_cast<uint32_t>(offset + RTA_ALIGN(attribute->rta_len));
  }

 private:
  alignas(nlmsghdr) char bytes_[256] = {};
};

class RouteSocket {
 public:
  RouteSocket() noexcept : fd_(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE)) {}
  ~RouteSocket() {
    if (fd_ >= 0) ::close(fd_);
  }
  RouteSocket(const RouteSocket&) = delete;
  RouteSocket& operator=(const RouteSocket&) = delete;

  int Send(Message& message) noexcept {
    if (fd_ < 0) return -errno;
    const auto length = message.header()->nlmsg_len;
    return ::send(fd_, message.header(), length, 0) == static_cast<ssize_t>(length) ? 0 : -errno;
  }

  ssize_t Receive(char* into, size_t bytes) noexcept {
    const ssize_t got = ::recv(fd_, into, bytes, 0);
    return got < 0 ? -errno : got;
  }

  // Sends and waits for the acknowledgement.
  int Do(Message& message) noexcept {
    message.header()->nlmsg_flags |= NLM_F_ACK;
    const int sent = Send(message);
    if (sent != 0) return sent;
    alignas(nlmsghdr) char answer[1024];
    const ssize_t got = Receive(answer, sizeof(answer));
    if (got < 0) return static_cast<int>(got);
    const auto* header = reinterpret_cast<const nlmsghdr*>(answer);
    if (!NLMSG_OK(header, static_cast<size_t>(got)) || header->nlmsg_type != NLMSG_ERROR) return -EPROTO;
    return static_cast<const nlmsgerr*>(NLMSG_DATA(header))->error;
  }

 private:
  int fd_;
};

bool HasMac(const nlmsghdr* header, const std::array<uint8_t, 6>& mac) noexcept {
  const auto* link = static_cast<const ifinfomsg*>(NLMSG_DATA(header));
  auto length = static_cast<int>(IFLA_PAYLOAD(header));
  for (const rtattr* attribute = IFLA_RTA(link); RTA_OK(attribute, length); attribute = RTA_NEXT(attribute, length)) {
    if (attribute->rta_type == IFLA_ADDRESS && RTA_PAYLOAD(attribute) == mac.size()) {
      return std::memcmp(RTA_DATA(attribute), mac.data(), mac.size()) == 0;
    }
  }
  return false;
}

uint8_t Family(const std::vector<uint8_t>& address) noexcept { return address.size() == 4 ? AF_INET : AF_INET6; }

bool IsAddress(const std::vector<uint8_t>& address) noexcept { return address.size() == 4 || address.size() == 16; }

}  // namespace

int LinkByMac(const std::array<uint8_t, 6>& mac) noexcept {
  RouteSocket socket;
  Message message(RTM_GETLINK, NLM_F_DUMP, sizeof(ifinfomsg));
  const int sent = socket.Send(message);
  if (sent != 0) return sent;
  int found = -ENODEV;
  alignas(nlmsghdr) static thread_local char answer[32768];
  while (true) {
    const ssize_t got = socket.Receive(answer, sizeof(answer));
    if (got < 0) return static_cast<int>(got);
    auto left = static_cast<size_t>(got);
    for (auto* header = reinterpret_cast<nlmsghdr*>(answer); NLMSG_OK(header, left); header = NLMSG_NEXT(header, left)) {
      if (header->nlmsg_type == NLMSG_DONE) return found;
      if (header->nlmsg_type == NLMSG_ERROR) return static_cast<const nlmsgerr*>(NLMSG_DATA(header))->error;
      if (header->nlmsg_type != RTM_NEWLINK || !HasMac(header, mac)) continue;
      if (found >= 0) return -ENOTUNIQ;
      found = static_cast<const ifinfomsg*>(NLMSG_DATA(header))->ifi_index;
    }
  }
}

int LinkUp(int index, uint32_t mtu) noexcept {
  Message message(RTM_NEWLINK, 0, sizeof(ifinfomsg));
  auto* link = message.body<ifinfomsg>();
  link->ifi_family = AF_UNSPEC;
  link->ifi_index = index;
  link->ifi_flags = IFF_UP;
  link->ifi_change = IFF_UP;
  if (mtu != 0) message.Attribute(IFLA_MTU, &mtu, sizeof(mtu));
  return RouteSocket().Do(message);
}

int AddAddress(int index, const std::vector<uint8_t>& address, uint8_t prefix) noexcept {
  if (!IsAddress(address)) return -EINVAL;
  Message message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, sizeof(ifaddrmsg));
  auto* body = message.body<ifaddrmsg>();
  body->ifa_family = Family(address);
  body->ifa_prefixlen = prefix;
  body->ifa_flags = address.size() == 16 ? IFA_F_NODAD : 0;
  body->ifa_index = static_cast<uint32_t>(index);
  message.Attribute(IFA_LOCAL, address.data(), address.size());
  message.Attribute(IFA_ADDRESS, address.data(), address.size());
  return RouteSocket().Do(message);
}

int AddGateway(int index, const std::vector<uint8_t>& gateway) noexcept {
  if (!IsAddress(gateway)) return -EINVAL;
  return AddRoute(index, std::vector<uint8_t>(gateway.size()), 0, gateway);
}

int AddRoute(int index, const std::vector<uint8_t>& network, uint8_t prefix, const std::vector<uint8_t>& gateway) noexcept {
  if (!IsAddress(network) || (!gateway.empty() && gateway.size() != network.size())) return -EINVAL;
  Message message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, sizeof(rtmsg));
  auto* route = message.body<rtmsg>();
  route->rtm_family = Family(network);
  route->rtm_dst_len = prefix;
  route->rtm_table = RT_TABLE_MAIN;
  route->rtm_protocol = RTPROT_BOOT;
  route->rtm_scope = gateway.empty() ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE;
  route->rtm_type = RTN_UNICAST;
  if (prefix > 0) message.Attribute(RTA_DST, network.data(), network.size());
  if (!gateway.empty()) message.Attribute(RTA_GATEWAY, gateway.data(), gateway.size());
  message.Attribute(RTA_OIF, &index, sizeof(index));
  return RouteSocket().Do(message);
}

int AddNeighbour(int index, const std::vector<uint8_t>& address, const std::array<uint8_t, 6>& mac) noexcept {
  if (!IsAddress(address)) return -EINVAL;
  Message message(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, sizeof(ndmsg));
  auto* neighbour = message.body<ndmsg>();
  neighbour->ndm_family = Family(address);
  neighbour->ndm_ifindex = index;
  neighbour->ndm_state = NUD_PERMANENT;
  message.Attribute(NDA_DST, address.data(), address.size());
  message.Attribute(NDA_LLADDR, mac.data(), mac.size());
  return RouteSocket().Do(message);
}

}  // namespace caisson
