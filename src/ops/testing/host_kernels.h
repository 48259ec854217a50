// The kernels of a device in plain loops on the host, as a reference and for tests of what drives
// devices. They round where the interface says BF16 and sum in one order.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "base/float16.h"
#include "device/testing/host_device.h"
#include "ops/device_kernels.h"

namespace kvasir::ops::testing {

inline float FromBf16(const void* p) {
  Bf16 half;
  std::memcpy(&half, p, 2);
  return ToFloat(half);
}

inline float At(const DeviceMatrix& m, int64_t row, int64_t column) {
  const int64_t at = row * m.stride + column;
  return m.bf16 ? FromBf16(m.data + 2 * at) : reinterpret_cast<const float*>(m.data)[at];
}

inline void Put(const DeviceMatrix& m, int64_t row, int64_t column, float x) {
  const int64_t at = row * m.stride + column;
  if (m.bf16) {
    const Bf16 half = ToBf16(x);
    std::memcpy(m.data + 2 * at, &half, 2);
  } else {
    reinterpret_cast<float*>(m.data)[at] = x;
  }
}

class HostKernels final : public DeviceKernels {
 public:
  explicit HostKernels(device::testing::HostDevice& device) : device_(device) {}

  std::string numerics() const override { return "host"; }
  Status Reserve(int64_t, int32_t, const DeviceKv&) override { return absl::OkStatus(); }

  void Embed(const DeviceBatch& batch, int64_t rows, const uint16_t* table, float scale,
             const DeviceMatrix& out) override {
    ForRows(rows, [=](int64_t r) {
      const int64_t token = std::max(batch.tokens[r], 0);
      for (int i = 0; i < out.width; ++i) {
        Put(out, r, i, FromBf16(table + token * out.width + i) * scale);
      }
    });
  }

  void RmsNorm(int64_t rows, const DeviceMatrix& x, const float* weight, float eps,
               int32_t head_width, const DeviceMatrix& out) override {
    const int32_t width = head_width > 0 ? head_width : x.width;
    ForRows(rows, [=](int64_t r) {
      for (int first = 0; first < x.width; first += width) {
        double squares = 0;
        for (int i = 0; i < width; ++i) squares += std::pow(At(x, r, first + i), 2);
        const double scale = 1 / std::sqrt(squares / width + eps);
        for (int i = 0; i < width; ++i) {
          Put(out, r, first + i, static_cast<float>(At(x, r, first + i) * scale * weight[i]));
        }
      }
    });
  }

  void Matmul(const DeviceMatmul& args) override {
    ForRows(args.rows, [=](int64_t r) {
      for (int n = 0; n < args.out.width; ++n) {
        double sum = args.bias == nullptr ? 0 : args.bias[n];
        for (int k = 0; k < args.x.width; ++k) {
          sum += double{At(args.x, r, k)} * FromBf16(args.weights + int64_t{n} * args.x.width + k);
        }
        if (args.accumulate) sum += At(args.out, r, n);
        Put(args.out, r, n, static_cast<float>(sum));
      }
    });
  }

  void RopeKvWrite(const DeviceBatch& batch, const DeviceRope& args, const DeviceKv& kv) override {
    ForRows(args.rows, [=](int64_t r) {
      if (batch.positions[r] < 0) return;
      for (int at = 0; at < args.q.width; at += kv.dim) {
        Rotate(args, args.q, r, batch.positions[r], at, args.scale, args.out, r, kv.dim);
      }
      for (int head = 0; head < kv.kv_heads; ++head) {
        uint8_t* k = Slot(batch, kv, r, batch.positions[r], head);
        const DeviceMatrix to_k{k, true, kv.dim, kv.dim},
            to_v{k + kv.k_bytes, true, kv.dim, kv.dim};
        DeviceMatrix key = args.k;
        key.data += int64_t{head} * kv.dim * (key.bf16 ? 2 : 4);
        Rotate(args, key, r, batch.positions[r], 0, 1, to_k, 0, kv.dim);
        for (int i = 0; i < kv.dim; ++i) Put(to_v, 0, i, At(args.v, r, head * kv.dim + i));
      }
    });
  }

  void Attention(const DeviceBatch& batch, const DeviceAttention& args,
                 const DeviceKv& kv) override {
    device_.Give([=] {
      for (int t = 0; t < args.all_tiles; ++t) {
        for (int r = 0; r < args.tiles[t].rows; ++r) {
          if (batch.positions[args.tiles[t].first_row + r] < 0) continue;
          for (int head = 0; head < args.heads; ++head) {
            AttendRow(batch, args, kv, args.tiles[t].first_row + r, head);
          }
        }
      }
    });
  }

  void Gated(int64_t rows, const DeviceMatrix& gate, const DeviceMatrix& up,
             const DeviceMatrix& out) override {
    ForRows(rows, [=](int64_t r) {
      for (int i = 0; i < out.width; ++i) {
        const float g = At(gate, r, i);
        Put(out, r, i, g / (1 + std::exp(-g)) * At(up, r, i));
      }
    });
  }

  void Convert(int64_t rows, const DeviceMatrix& x, const DeviceMatrix& out) override {
    ForRows(rows, [=](int64_t r) {
      for (int i = 0; i < out.width; ++i) Put(out, r, i, At(x, r, i));
    });
  }

  void SelectRows(int64_t rows, const int32_t* which, const DeviceMatrix& x,
                  const DeviceMatrix& out) override {
    ForRows(rows, [=](int64_t r) {
      for (int i = 0; i < out.width; ++i) Put(out, r, i, At(x, which[r], i));
    });
  }

  // (The best token, whatever the temperature: what is drawn is tested against sample::Sampler.)
  void Draw(int64_t rows, const DeviceMatrix& logits, const DeviceDraw*, int32_t* ids) override {
    ForRows(rows, [=](int64_t r) {
      ids[r] = 0;
      for (int i = 0; i < logits.width && ids[r] >= 0; ++i) {
        if (!std::isfinite(At(logits, r, i))) {
          ids[r] = -1;
        } else if (At(logits, r, i) > At(logits, r, ids[r])) {
          ids[r] = i;
        }
      }
    });
  }

 private:
  template <class Body>
  void ForRows(int64_t rows, Body body) {
    device_.Give([=] {
      for (int64_t r = 0; r < rows; ++r) body(r);
    });
  }

  static uint8_t* Slot(const DeviceBatch& batch, const DeviceKv& kv, int64_t row, int position,
                       int kv_head) {
    const int block =
        batch.tables[batch.table_begins[batch.sequences[row]] + position / kv.block_size];
    return kv.blocks + block * kv.block_bytes + kv.layer_offset + kv_head * kv.head_bytes +
           int64_t{position % kv.block_size} * kv.dim * 2;
  }

  static void Rotate(const DeviceRope& args, const DeviceMatrix& x, int64_t row, int64_t position,
                     int64_t at, float scale, const DeviceMatrix& out, int64_t out_row, int dim) {
    const int half = args.width / 2;
    for (int i = 0; i < half; ++i) {
      const float a = At(x, row, at + i), b = At(x, row, at + i + half);
      const float cosine = args.cosines[position * half + i];
      const float sine = args.sines[position * half + i];
      Put(out, out_row, at + i, (a * cosine - b * sine) * scale);
      Put(out, out_row, at + i + half, (a * sine + b * cosine) * scale);
    }
    for (int i = args.width; i < dim; ++i) Put(out, out_row, at + i, At(x, row, at + i) * scale);
  }

  static void AttendRow(const DeviceBatch& batch, const DeviceAttention& args, const DeviceKv& kv,
                        int64_t row, int head) {
    const int kv_head = head / (args.heads / kv.kv_heads);
    const int positions = batch.positions[row] + 1;
    std::vector<double> scores(positions);
    double maximum = -std::numeric_limits<double>::infinity(), sum = 0;
    for (int p = 0; p < positions; ++p) {
      const uint8_t* k = Slot(batch, kv, row, p, kv_head);
      for (int i = 0; i < kv.dim; ++i) {
        scores[p] += double{At(args.q, row, head * kv.dim + i)} * FromBf16(k + 2 * i);
      }
      maximum = std::max(maximum, scores[p]);
    }
    for (double& score : scores) sum += score = std::exp(score - maximum);
    for (int i = 0; i < kv.dim; ++i) {
      double value = 0;
      for (int p = 0; p < positions; ++p) {
        value += scores[p] * FromBf16(Slot(batch, kv, row, p, kv_head) + kv.k_bytes + 2 * i);
      }
      Put(args.out, row, head * kv.dim + i, static_cast<float>(value / sum));
    }
  }

  device::testing::HostDevice& device_;
};

inline Accelerator HostAccelerator() {
  auto device = std::make_unique<device::testing::HostDevice>();
  auto kernels = std::make_unique<HostKernels>(*device);
  return {std::move(device), std::move(kernels)};
}

}  // namespace kvasir::ops::testing
