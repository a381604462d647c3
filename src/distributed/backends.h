#pragma once
#include <c10/util/intrusive_ptr.h>

#include <chrono>
#include <string>

namespace c10d {
class Backend;
class Store;
}  // namespace c10d

namespace uvit {

/// gloo on the network interface through which `master_addr` is reached, so that a machine whose name resolves to loopback needs no setting;
/// GLOO_SOCKET_IFNAME names another interface.
c10::intrusive_ptr<c10d::Backend> make_gloo_backend(const c10::intrusive_ptr<c10d::Store>& store, int rank, int size, const std::string& master_addr,
                                                    std::chrono::milliseconds timeout);

}  // namespace uvit
