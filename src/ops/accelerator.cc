#include <charconv>

#include <fmt/format.h>

#include "ops/device_kernels.h"
#ifdef KVASIR_CUDA
#include "ops/cuda/open.h"
#endif

namespace kvasir::ops {

namespace {

// N of "cuda:N", 0 of "cuda"; -1: neither.
int OrdinalOf(std::string_view name) {
  constexpr std::string_view kPrefix = "cuda:";
  if (name == "cuda") return 0;
  if (!name.starts_with(kPrefix)) return -1;
  name.remove_prefix(kPrefix.size());
  int ordinal = -1;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), ordinal);
  return error == std::errc() && end == name.data() + name.size() ? ordinal : -1;
}

}  // namespace

StatusOr<Accelerator> OpenAccelerator(std::string_view name, bool deterministic) {
  const int ordinal = OrdinalOf(name);
  if (ordinal < 0) {
    return absl::InvalidArgumentError(
        fmt::format("device: '{}' is none of cpu, cuda and cuda:N", name));
  }
#ifdef KVASIR_CUDA
  return OpenCuda(ordinal, deterministic);
#else
  (void)deterministic;
  return absl::UnimplementedError(
      "device 'cuda': this program was built without it; the CMake preset 'cuda' builds it");
#endif
}

}  // namespace kvasir::ops
