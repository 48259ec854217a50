// The kernels of a device with memory of its own: each is an order to a device::Device and works on
// whole matrices.
//
// In deterministic mode a row of any result depends on its own inputs alone, bit by bit, whatever
// else is in the batch and however a prompt is cut; the fast mode chooses by the number of rows.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/status.h"
#include "device/device.h"
#include "ops/device_args.h"

namespace kvasir::ops {

// One thread at a time.
class DeviceKernels {
 public:
  virtual ~DeviceKernels() = default;

  // Names everything that decides a bit of what these kernels compute.
  virtual std::string numerics() const = 0;

  // Allocates what the kernels need for batches of up to `rows`. Unimplemented names the shape of
  // heads that Attention does not do.
  virtual Status Reserve(int64_t rows, int32_t heads, const DeviceKv& kv) = 0;

  virtual void Embed(const DeviceBatch& batch, int64_t rows, const uint16_t* table, float scale,
                     const DeviceMatrix& out) = 0;
  // Of each `head_width` columns of x (0: of all) on its own: x / sqrt(mean(x^2) + eps) * weight
  virtual void RmsNorm(int64_t rows, const DeviceMatrix& x, const float* weight, float eps,
                       int32_t head_width, const DeviceMatrix& out) = 0;
  virtual void Matmul(const DeviceMatmul& args) = 0;
  virtual void RopeKvWrite(const DeviceBatch& batch, const DeviceRope& args,
                           const DeviceKv& kv) = 0;
  // Each row over the positions of its sequence up to its own.
  virtual void Attention(const DeviceBatch& batch, const DeviceAttention& args,
                         const DeviceKv& kv) = 0;
  // silu(gate) * up
  virtual void Gated(int64_t rows, const DeviceMatrix& gate, const DeviceMatrix& up,
                     const DeviceMatrix& out) = 0;
  // out = x, as another type
  virtual void Convert(int64_t rows, const DeviceMatrix& x, const DeviceMatrix& out) = 0;
  // out[i] = x[which[i]], of one type
  virtual void SelectRows(int64_t rows, const int32_t* which, const DeviceMatrix& x,
                          const DeviceMatrix& out) = 0;
  // ids[i] = the token that draws[i] chooses from row i, float32; -1 where a logit is not finite.
  virtual void Draw(int64_t rows, const DeviceMatrix& logits, const DeviceDraw* draws,
                    int32_t* ids) = 0;
};

struct Accelerator {
  std::unique_ptr<device::Device> device;
  std::unique_ptr<DeviceKernels> kernels;  // gone before the device
};

// "cuda" or "cuda:N". Unimplemented when this build has no such device; FailedPrecondition says in
// one line why it cannot be used: no driver, no such number, an architecture without kernels.
StatusOr<Accelerator> OpenAccelerator(std::string_view name, bool deterministic);

}  // namespace kvasir::ops
