// The kernels of NVIDIA GPUs: our own, and cuBLASLt for large products of the fast mode.
#pragma once

#include <cublasLt.h>

#include <array>
#include <map>
#include <string>

#include "device/cuda/cuda_device.h"
#include "ops/device_kernels.h"

namespace kvasir::ops {

class CudaKernels final : public DeviceKernels {
 public:
  // `device` outlives the result. FailedPrecondition when there are no kernels for its
  // architecture.
  static StatusOr<std::unique_ptr<CudaKernels>> Create(device::CudaDevice& device,
                                                       bool deterministic);
  ~CudaKernels() override;

  std::string numerics() const override;
  Status Reserve(int64_t rows, int32_t heads, const DeviceKv& kv) override;
  void Embed(const DeviceBatch& batch, int64_t rows, const uint16_t* table, float scale,
             const DeviceMatrix& out) override;
  void RmsNorm(int64_t rows, const DeviceMatrix& x, const float* weight, float eps,
               int32_t head_width, const DeviceMatrix& out) override;
  void Matmul(const DeviceMatmul& args) override;
  void RopeKvWrite(const DeviceBatch& batch, const DeviceRope& args, const DeviceKv& kv) override;
  void Attention(const DeviceBatch& batch, const DeviceAttention& args,
                 const DeviceKv& kv) override;
  void Gated(int64_t rows, const DeviceMatrix& gate, const DeviceMatrix& up,
             const DeviceMatrix& out) override;
  void Convert(int64_t rows, const DeviceMatrix& x, const DeviceMatrix& out) override;
  void SelectRows(int64_t rows, const int32_t* which, const DeviceMatrix& x,
                  const DeviceMatrix& out) override;
  void Draw(int64_t rows, const DeviceMatrix& logits, const DeviceDraw* draws,
            int32_t* ids) override;

 private:
  // What cuBLASLt needs to know of a product, and the algorithm that it proposed.
  struct Product {
    cublasLtMatmulDesc_t operation = nullptr;
    cublasLtMatrixLayout_t weights = nullptr, x = nullptr, out = nullptr;
    cublasLtMatmulAlgo_t algorithm;
  };
  // Rows, columns, depth, strides of x and out, BF16 out.
  using Shape = std::array<int64_t, 6>;

  CudaKernels(device::CudaDevice& device, bool deterministic)
      : device_(device), deterministic_(deterministic) {}
  void LibraryMatmul(const DeviceMatmul& args);
  const Product* ProductFor(const DeviceMatmul& args);
  void Note(cublasStatus_t status);
  void Launched(const char* what);

  device::CudaDevice& device_;
  const bool deterministic_;
  cublasLtHandle_t library_ = nullptr;
  std::map<Shape, Product> products_;
  device::DeviceMemory workspace_;
  device::DeviceMemory partials_;
};

}  // namespace kvasir::ops
