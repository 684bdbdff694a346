// Interfaces, addresses and routes over rtnetlink(7). Results are non-negative or -errno.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace caisson {

// Index of the interface with this hardware address, -ENODEV when there is none, -ENOTUNIQ when there are several.
int LinkByMac(const std::array<uint8_t, 6>& mac) noexcept;

// mtu 0 leaves it.
int LinkUp(int index, uint32_t mtu) noexcept;

// 4 or 16 bytes. IPv6 addresses are usable at once: no duplicate detection, the host assigned them.
int AddAddress(int index, const std::vector<uint8_t>& address, uint8_t prefix) noexcept;

// A default route by this gateway.
int AddGateway(int index, const std::vector<uint8_t>& gateway) noexcept;

// A route to a network; an empty gateway means on the link itself.
int AddRoute(int index, const std::vector<uint8_t>& network, uint8_t prefix, const std::vector<uint8_t>& gateway) noexcept;

// A neighbour whose link address is known for good.
int AddNeighbour(int index, const std::vector<uint8_t>& address, const std::array<uint8_t, 6>& mac) noexcept;

}  // namespace caisson
