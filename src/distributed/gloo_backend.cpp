// The one source file that sees gloo: compiled with USE_C10D_GLOO and the declarations in gloo_stub/ (cmake/Distributed.cmake).
#include <arpa/inet.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

#include "distributed/backends.h"

namespace uvit {
namespace {

/// The address of this machine from which packets to `host` leave; "" where that cannot be told. Connecting a UDP socket sends nothing.
std::string local_address_towards(const std::string& host) {
  addrinfo hints = {};
  hints.ai_socktype = SOCK_DGRAM;
  addrinfo* found = nullptr;
  if (::getaddrinfo(host.c_str(), "9", &hints, &found) != 0) return "";
  std::string address;
  for (const addrinfo* one = found; one && address.empty(); one = one->ai_next) {
    const int fd = ::socket(one->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) continue;
    sockaddr_storage local = {};
    socklen_t size = sizeof local;
    char text[NI_MAXHOST] = {};
    if (::connect(fd, one->ai_addr, one->ai_addrlen) == 0 && ::getsockname(fd, reinterpret_cast<sockaddr*>(&local), &size) == 0 &&
        ::getnameinfo(reinterpret_cast<const sockaddr*>(&local), size, text, sizeof text, nullptr, 0, NI_NUMERICHOST) == 0)
      address = text;
    ::close(fd);
  }
  ::freeaddrinfo(found);
  return address;
}

}  // namespace

c10::intrusive_ptr<c10d::Backend> make_gloo_backend(const c10::intrusive_ptr<c10d::Store>& store, int rank, int size, const std::string& master_addr,
                                                    std::chrono::milliseconds timeout) {
  using Gloo = c10d::ProcessGroupGloo;
  const auto options = Gloo::Options::create(timeout);
  const char* interface = std::getenv("GLOO_SOCKET_IFNAME");
  const std::string local = local_address_towards(master_addr);
  options->devices.push_back(interface && *interface ? Gloo::createDeviceForInterface(interface)
                             : local.empty()         ? Gloo::createDefaultDevice()
                                                     : Gloo::createDeviceForHostname(local));
  return c10::make_intrusive<Gloo>(store, rank, size, options);
}

}  // namespace uvit
