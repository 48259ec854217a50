#include "ops/cuda/cuda_kernels.h"

#include <algorithm>

#include <fmt/format.h>

#include "ops/cuda/launch.h"
#include "ops/cuda/open.h"

namespace kvasir::ops {
namespace {

constexpr int64_t kWorkspaceBytes = int64_t{64} << 20;
constexpr int32_t kMaxSplits = 32;

// Parts into which the KV of single rows is split, so that there are blocks enough for the device.
int32_t Splits(int32_t tiles, int32_t kv_heads, int32_t multiprocessors) {
  const int32_t blocks = tiles * kv_heads;
  return std::clamp((2 * multiprocessors + blocks - 1) / blocks, 1, kMaxSplits);
}

}  // namespace

StatusOr<std::unique_ptr<CudaKernels>> CudaKernels::Create(device::CudaDevice& device,
                                                           bool deterministic) {
  std::unique_ptr<CudaKernels> out(new CudaKernels(device, deterministic));
  if (const cudaError_t error = FindKernels(); error != cudaSuccess) {
    const cudaDeviceProp& properties = device.properties();
    return absl::FailedPreconditionError(
        fmt::format("device '{}': this build has no kernels for its compute capability {}.{}: {}",
                    device.name(), properties.major, properties.minor, cudaGetErrorString(error)));
  }
  if (cublasLtCreate(&out->library_) != CUBLAS_STATUS_SUCCESS) {
    return absl::FailedPreconditionError("device 'cuda': cuBLASLt does not start");
  }
  return out;
}

StatusOr<Accelerator> OpenCuda(int ordinal, bool deterministic) {
  KVASIR_ASSIGN_OR_RETURN(std::unique_ptr<device::CudaDevice> device,
                          device::CudaDevice::Open(ordinal));
  KVASIR_ASSIGN_OR_RETURN(std::unique_ptr<CudaKernels> kernels,
                          CudaKernels::Create(*device, deterministic));
  return Accelerator{std::move(device), std::move(kernels)};
}

CudaKernels::~CudaKernels() {
  for (auto& [shape, product] : products_) {
    cublasLtMatmulDescDestroy(product.operation);
    for (cublasLtMatrixLayout_t layout : {product.weights, product.x, product.out}) {
      cublasLtMatrixLayoutDestroy(layout);
    }
  }
  if (library_ != nullptr) cublasLtDestroy(library_);
}

// The fast mode depends on what the library chooses for this chip.
std::string CudaKernels::numerics() const {
  if (deterministic_) return "cuda-1 deterministic mma=16x8x16 tile=64";
  const cudaDeviceProp& properties = device_.properties();
  return fmt::format("cuda-1 fast sm={}{} cublas={}", properties.major, properties.minor,
                     cublasLtGetVersion());
}

Status CudaKernels::Reserve(int64_t rows, int32_t heads, const DeviceKv& kv) {
  if (!HasHeadDim(kv.dim)) {
    return absl::UnimplementedError(
        fmt::format("head_dim: {} is not there on this device: 16, 32, 64 and 128 are", kv.dim));
  }
  const int32_t most = deterministic_ ? kTileQueries : kSingleRowHeads;
  if (heads / kv.kv_heads > most) {
    return absl::UnimplementedError(
        fmt::format("{} query heads share a KV head: {} can", heads / kv.kv_heads, most));
  }
  if (deterministic_) return absl::OkStatus();
  KVASIR_ASSIGN_OR_RETURN(workspace_, device_.Allocate(kWorkspaceBytes));
  // With tiles times KV heads blocks, parts are made until there are two a multiprocessor.
  const int64_t parts =
      rows + 2 * device_.properties().multiProcessorCount / kv.kv_heads + kMaxSplits;
  KVASIR_ASSIGN_OR_RETURN(partials_,
                          device_.Allocate(parts * heads * (kv.dim + 2) * sizeof(float)));
  return absl::OkStatus();
}

void CudaKernels::Launched(const char* what) { device_.Note(cudaGetLastError(), what); }

void CudaKernels::Note(cublasStatus_t status) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  device_.NoteFailure(absl::InternalError(fmt::format(
      "device '{}' failed in cuBLASLt: {}", device_.name(), cublasLtGetStatusString(status))));
}

void CudaKernels::Embed(const DeviceBatch& batch, int64_t rows, const uint16_t* table, float scale,
                        const DeviceMatrix& out) {
  LaunchEmbed(device_.stream(), batch, rows, table, scale, out);
  Launched("embedding");
}

void CudaKernels::RmsNorm(int64_t rows, const DeviceMatrix& x, const float* weight, float eps,
                          int32_t head_width, const DeviceMatrix& out) {
  LaunchRmsNorm(device_.stream(), rows, x, weight, eps, head_width, out);
  Launched("normalising");
}

void CudaKernels::RopeKvWrite(const DeviceBatch& batch, const DeviceRope& args,
                              const DeviceKv& kv) {
  LaunchRopeKvWrite(device_.stream(), batch, args, kv);
  Launched("rotating");
}

void CudaKernels::Gated(int64_t rows, const DeviceMatrix& gate, const DeviceMatrix& up,
                        const DeviceMatrix& out) {
  LaunchGated(device_.stream(), rows, gate, up, out);
  Launched("gating");
}

void CudaKernels::Convert(int64_t rows, const DeviceMatrix& x, const DeviceMatrix& out) {
  LaunchConvert(device_.stream(), rows, x, out);
  Launched("converting");
}

void CudaKernels::SelectRows(int64_t rows, const int32_t* which, const DeviceMatrix& x,
                             const DeviceMatrix& out) {
  LaunchSelectRows(device_.stream(), rows, which, x, out);
  Launched("selecting rows");
}

void CudaKernels::Draw(int64_t rows, const DeviceMatrix& logits, const DeviceDraw* draws,
                       int32_t* ids) {
  LaunchDraw(device_.stream(), rows, logits, draws, ids);
  Launched("choosing tokens");
}

void CudaKernels::Attention(const DeviceBatch& batch, const DeviceAttention& args,
                            const DeviceKv& kv) {
  // One kernel for all in deterministic mode: what it does for a row does not depend on the tile.
  const int32_t single = deterministic_ ? 0 : args.single_tiles;
  if (single > 0) {
    const int32_t splits = Splits(single, kv.kv_heads, device_.properties().multiProcessorCount);
    LaunchSingleRows(device_.stream(), batch, args, kv, splits, partials_.as<float>());
    Launched("attending");
  }
  if (args.all_tiles > single) {
    LaunchAttention(device_.stream(), batch, args, kv, single, args.all_tiles - single);
    Launched("attending");
  }
}

void CudaKernels::Matmul(const DeviceMatmul& args) {
  if (deterministic_) {
    LaunchTiledMatmul(device_.stream(), args);
  } else if (args.rows <= kVectorRows) {
    LaunchVectorMatmul(device_.stream(), args);
  } else {
    LibraryMatmul(args);
  }
  Launched("multiplying");
}

// By columns, as the library sees matrices, out^T [columns][rows] = weights x^T.
const CudaKernels::Product* CudaKernels::ProductFor(const DeviceMatmul& args) {
  const Shape shape{args.rows,     args.out.width,  args.x.width,
                    args.x.stride, args.out.stride, args.out.bf16};
  const auto [it, is_new] = products_.try_emplace(shape);
  Product& product = it->second;
  if (!is_new) return &product;
  const cudaDataType_t out_type = args.out.bf16 ? CUDA_R_16BF : CUDA_R_32F;
  const cublasOperation_t transposed = CUBLAS_OP_T;
  Note(cublasLtMatmulDescCreate(&product.operation, CUBLAS_COMPUTE_32F, CUDA_R_32F));
  Note(cublasLtMatmulDescSetAttribute(product.operation, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                      sizeof(transposed)));
  Note(cublasLtMatrixLayoutCreate(&product.weights, CUDA_R_16BF, args.x.width, args.out.width,
                                  args.x.width));
  Note(cublasLtMatrixLayoutCreate(&product.x, CUDA_R_16BF, args.x.width, args.rows, args.x.stride));
  Note(cublasLtMatrixLayoutCreate(&product.out, out_type, args.out.width, args.rows,
                                  args.out.stride));
  cublasLtMatmulPreference_t preference = nullptr;
  Note(cublasLtMatmulPreferenceCreate(&preference));
  const size_t workspace = kWorkspaceBytes;
  Note(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                            &workspace, sizeof(workspace)));
  cublasLtMatmulHeuristicResult_t found;
  int count = 0;
  Note(cublasLtMatmulAlgoGetHeuristic(library_, product.operation, product.weights, product.x,
                                      product.out, product.out, preference, 1, &found, &count));
  cublasLtMatmulPreferenceDestroy(preference);
  if (count == 0) return nullptr;
  product.algorithm = found.algo;
  return &product;
}

void CudaKernels::LibraryMatmul(const DeviceMatmul& args) {
  const Product* product = ProductFor(args);
  if (product == nullptr) return;  // noted
  const float one = 1.0f, beta = args.accumulate ? 1.0f : 0.0f;
  const cudaStream_t stream = device_.stream();
  Note(cublasLtMatmul(library_, product->operation, &one, args.weights, product->weights,
                      args.x.data, product->x, &beta, args.out.data, product->out, args.out.data,
                      product->out, &product->algorithm, workspace_.bytes(), kWorkspaceBytes,
                      stream));
  if (args.bias != nullptr) LaunchAddBias(stream, args.rows, args.bias, args.out);
}

}  // namespace kvasir::ops
