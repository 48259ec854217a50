// The time that each kind of kernel takes on a GPU: kernels between two events each.
#pragma once

#include <cuda_runtime_api.h>

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "ops/device_kernels.h"

namespace kvasir {

class KernelTimes final : public ops::DeviceKernels {
 public:
  struct Kind {
    double seconds = 0;
    double bytes = 0;  // of weights, read
    double flops = 0;  // of matrix products
  };

  KernelTimes(std::unique_ptr<ops::DeviceKernels> kernels, cudaStream_t stream)
      : kernels_(std::move(kernels)), stream_(stream) {}
  ~KernelTimes() override {
    for (cudaEvent_t event : free_) cudaEventDestroy(event);
    for (const Span& span : spans_) {
      cudaEventDestroy(span.begin);
      cudaEventDestroy(span.end);
    }
  }

  // What was given since the last call, once it has been carried out.
  std::map<std::string, Kind> Take() {
    cudaStreamSynchronize(stream_);
    std::map<std::string, Kind> out;
    for (const Span& span : spans_) {
      float milliseconds = 0;
      cudaEventElapsedTime(&milliseconds, span.begin, span.end);
      Kind& kind = out[span.kind];
      kind.seconds += 1e-3 * milliseconds;
      kind.bytes += span.bytes;
      kind.flops += span.flops;
      free_.insert(free_.end(), {span.begin, span.end});
    }
    spans_.clear();
    return out;
  }

  std::string numerics() const override { return kernels_->numerics(); }
  Status Reserve(int64_t rows, int32_t heads, const ops::DeviceKv& kv) override {
    return kernels_->Reserve(rows, heads, kv);
  }
  void Embed(const ops::DeviceBatch& batch, int64_t rows, const uint16_t* table, float scale,
             const ops::DeviceMatrix& out) override {
    Time({"embedding"}, [&] { kernels_->Embed(batch, rows, table, scale, out); });
  }
  void RmsNorm(int64_t rows, const ops::DeviceMatrix& x, const float* weight, float eps,
               int32_t head_width, const ops::DeviceMatrix& out) override {
    Time({"norm"}, [&] { kernels_->RmsNorm(rows, x, weight, eps, head_width, out); });
  }
  void Matmul(const ops::DeviceMatmul& args) override {
    const auto weights = static_cast<double>(args.out.width) * args.x.width;
    Time({fmt::format("product with {} x {}", args.out.width, args.x.width), 2 * weights,
          2 * weights * static_cast<double>(args.rows)},
         [&] { kernels_->Matmul(args); });
  }
  void RopeKvWrite(const ops::DeviceBatch& batch, const ops::DeviceRope& args,
                   const ops::DeviceKv& kv) override {
    Time({"RoPE and KV write"}, [&] { kernels_->RopeKvWrite(batch, args, kv); });
  }
  void Attention(const ops::DeviceBatch& batch, const ops::DeviceAttention& args,
                 const ops::DeviceKv& kv) override {
    Time({"attention"}, [&] { kernels_->Attention(batch, args, kv); });
  }
  void Gated(int64_t rows, const ops::DeviceMatrix& gate, const ops::DeviceMatrix& up,
             const ops::DeviceMatrix& out) override {
    Time({"gate"}, [&] { kernels_->Gated(rows, gate, up, out); });
  }
  void Convert(int64_t rows, const ops::DeviceMatrix& x, const ops::DeviceMatrix& out) override {
    Time({"conversion"}, [&] { kernels_->Convert(rows, x, out); });
  }
  void SelectRows(int64_t rows, const int32_t* which, const ops::DeviceMatrix& x,
                  const ops::DeviceMatrix& out) override {
    Time({"selection of rows"}, [&] { kernels_->SelectRows(rows, which, x, out); });
  }
  void Draw(int64_t rows, const ops::DeviceMatrix& logits, const ops::DeviceDraw* draws,
            int32_t* ids) override {
    Time({"draw"}, [&] { kernels_->Draw(rows, logits, draws, ids); });
  }

 private:
  struct Span {
    std::string kind;
    double bytes = 0, flops = 0;
    cudaEvent_t begin = nullptr, end = nullptr;
  };

  template <class Give>
  void Time(Span span, Give give) {
    span.begin = Event();
    span.end = Event();
    cudaEventRecord(span.begin, stream_);
    give();
    cudaEventRecord(span.end, stream_);
    spans_.push_back(std::move(span));
  }

  cudaEvent_t Event() {
    cudaEvent_t event = nullptr;
    if (free_.empty()) {
      cudaEventCreate(&event);
    } else {
      event = free_.back();
      free_.pop_back();
    }
    return event;
  }

  const std::unique_ptr<ops::DeviceKernels> kernels_;
  const cudaStream_t stream_;
  std::vector<Span> spans_;
  std::vector<cudaEvent_t> free_;
};

}  // namespace kvasir
