// A model of Llama-3.1-8B's shape with random weights on a GPU, through the engine and without
// HTTP: decode, prefill, time to first token, alone and behind a cached prefix. Prints a line of
// JSON for each figure, which bench/gpu/report.py sets beside floors. With --profile: what share of
// a step each kind of kernel takes.
#include <algorithm>
#include <chrono>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "compile/compiler.h"
#include "core/block_hash.h"
#include "device/cuda/cuda_device.h"
#include "engine/core.h"
#include "kernel_times.h"
#include "model/checkpoint.h"
#include "ops/cpu/dispatch.h"
#include "ops/device_kernels.h"
#include "runtime/device_runner.h"

namespace kvasir {
namespace {

struct Shape {
  int32_t layers = 32, hidden = 4096, heads = 32, kv_heads = 8, head_dim = 128, ffn = 14336;
  int32_t vocab = 128256;
};

// Weights that all lie in one piece of random numbers, at places of their own.
class RandomCheckpoint {
 public:
  explicit RandomCheckpoint(const Shape& shape) : shape_(shape), random_(kElements) {
    std::minstd_rand random(1);
    std::normal_distribution<float> normal(0.0f, 0.02f);
    std::vector<uint16_t> few(1 << 16);
    for (uint16_t& x : few) {
      const float value = normal(random);
      uint32_t bits;
      std::memcpy(&bits, &value, 4);
      x = static_cast<uint16_t>(bits >> 16);
    }
    for (size_t i = 0; i < random_.size(); ++i) random_[i] = few[random() % few.size()];
    ones_.assign(shape.hidden, 1.0f);
  }

  std::shared_ptr<const model::Checkpoint> Make() {
    auto out = std::make_shared<model::Checkpoint>();
    model::ModelConfig& config = out->config;
    config.architecture = "llama";
    config.name = "random";
    config.layers = shape_.layers;
    config.hidden = shape_.hidden;
    config.heads = shape_.heads;
    config.kv_heads = shape_.kv_heads;
    config.head_dim = shape_.head_dim;
    config.ffn = shape_.ffn;
    config.vocab = shape_.vocab;
    config.context_length = 8192;
    config.rope = {.theta = 500000.0f, .width = shape_.head_dim};
    config.own_head = true;
    config.eos_ids = {0};
    model::TensorMap& t = out->tensors;
    const int32_t q = shape_.heads * shape_.head_dim, kv = shape_.kv_heads * shape_.head_dim;
    t["token_embd.weight"] = Matrix(shape_.vocab, shape_.hidden);
    t["output.weight"] = Matrix(shape_.vocab, shape_.hidden);
    t["output_norm.weight"] = Norm();
    for (int32_t layer = 0; layer < shape_.layers; ++layer) {
      const auto name = [&](const char* part) {
        return fmt::format("blk.{}.{}.weight", layer, part);
      };
      t[name("attn_norm")] = Norm();
      t[name("attn_q")] = Matrix(q, shape_.hidden);
      t[name("attn_k")] = Matrix(kv, shape_.hidden);
      t[name("attn_v")] = Matrix(kv, shape_.hidden);
      t[name("attn_output")] = Matrix(shape_.hidden, q);
      t[name("ffn_norm")] = Norm();
      t[name("ffn_gate")] = Matrix(shape_.ffn, shape_.hidden);
      t[name("ffn_up")] = Matrix(shape_.ffn, shape_.hidden);
      t[name("ffn_down")] = Matrix(shape_.hidden, shape_.ffn);
    }
    return out;
  }

 private:
  static constexpr size_t kElements = size_t{640} << 20;  // more than the largest matrix

  model::TensorView Matrix(int64_t rows, int64_t cols) {
    const size_t size = static_cast<size_t>(rows * cols);
    next_ = (next_ + 7919 * 64) % (kElements - size);
    return {DType::kBf16,
            rows,
            cols,
            {reinterpret_cast<const uint8_t*>(random_.data() + next_), size * 2}};
  }
  model::TensorView Norm() {
    return {DType::kF32,
            1,
            shape_.hidden,
            {reinterpret_cast<const uint8_t*>(ones_.data()), ones_.size() * 4}};
  }

  const Shape shape_;
  std::vector<uint16_t> random_;
  std::vector<float> ones_;
  size_t next_ = 0;
};

double Seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

struct Counter final : TokenSink {
  void OnEvent(TokenEvent event) override {
    if (tokens == 0 && !event.tokens.empty()) first = Seconds();
    tokens += static_cast<int64_t>(event.tokens.size());
    done = done || event.finish.has_value();
    failed = failed || event.finish == FinishReason::kError;
  }
  int64_t tokens = 0;
  double first = 0;
  bool done = false;
  bool failed = false;
};

class Bench {
 public:
  Bench(engine::Core& core, int32_t vocab) : core_(core), vocab_(vocab) {}

  SamplingParams sampling{.temperature = 0, .ignore_eos = true};  // of all requests

  std::vector<TokenId> Prompt(int length) {
    std::vector<TokenId> out(length);
    for (TokenId& id : out) id = static_cast<TokenId>(1 + random_() % (vocab_ - 1));
    return out;
  }

  std::shared_ptr<Counter> Add(std::vector<TokenId> prompt, int outputs) {
    auto request = std::make_shared<Request>();
    request->id = std::to_string(next_id_++);
    request->prompt_ids = std::move(prompt);
    request->hash_root =
        CacheRoot(core_.model().weights_fingerprint, core_.model().numerics_id, "", "");
    request->unit_hashes = HashUnits(request->hash_root, request->prompt_ids);
    request->sampling = sampling;
    request->sampling.max_tokens = outputs;
    auto sink = std::make_shared<Counter>();
    if (const Status added = core_.Add(request, sink); !added.ok()) {
      fmt::print(stderr, "{}\n", added.ToString());
      std::exit(1);
    }
    return sink;
  }

  void RunAll() {
    while (core_.Step()) {
    }
  }

  // Output tokens a second once all of `batch` sequences decode. Their prompts are computed before,
  // so that all start together. `each_step` is called before each step.
  double Decode(
      int batch, int prompt, int outputs, const std::function<void()>& each_step = [] {}) {
    std::vector<std::vector<TokenId>> prompts;
    for (int i = 0; i < batch; ++i) prompts.push_back(Prompt(prompt));
    for (const auto& tokens : prompts) Add(tokens, 1);
    RunAll();
    std::vector<std::shared_ptr<Counter>> sinks;
    for (const auto& tokens : prompts) sinks.push_back(Add(tokens, outputs));
    const auto tokens = [&] {
      int64_t sum = 0;
      for (const auto& sink : sinks) sum += sink->tokens;
      return sum;
    };
    const auto all_started = [&] {
      for (const auto& sink : sinks) {
        if (sink->tokens == 0) return false;
      }
      return true;
    };
    while (!all_started() && core_.Step()) {
    }
    const int64_t before = tokens();
    const double begin = Seconds();
    const auto one_done = [&] {
      for (const auto& sink : sinks) {
        if (sink->done) return true;
      }
      return false;
    };
    do {
      each_step();
    } while (!one_done() && core_.Step());
    const double rate = static_cast<double>(tokens() - before) / (Seconds() - begin);
    RunAll();
    return rate;
  }

  // Prompt tokens a second until each of `batch` prompts has its first token.
  double Prefill(int batch, int prompt) {
    const double begin = Seconds();
    for (int i = 0; i < batch; ++i) Add(Prompt(prompt), 1);
    RunAll();
    return static_cast<double>(batch) * prompt / (Seconds() - begin);
  }

  double FirstToken(std::vector<TokenId> prompt) {
    const double begin = Seconds();
    const auto sink = Add(std::move(prompt), 1);
    RunAll();
    return sink->first - begin;
  }

  // Output tokens a second of `count` requests that come at once.
  double Throughput(int count, int prompt, int outputs) {
    const double begin = Seconds();
    for (int i = 0; i < count; ++i) Add(Prompt(prompt), outputs);
    RunAll();
    return static_cast<double>(count) * outputs / (Seconds() - begin);
  }

  // Requests a second of `count` that come at once and share their first tokens, which are cached.
  double Shared(int count, int shared, int own) {
    const std::vector<TokenId> prefix = Prompt(shared);
    FirstToken(prefix);
    const double begin = Seconds();
    for (int i = 0; i < count; ++i) Add(Concat(prefix, Prompt(own)), 1);
    RunAll();
    return count / (Seconds() - begin);
  }

  std::vector<TokenId> Concat(std::vector<TokenId> a, const std::vector<TokenId>& b) {
    a.insert(a.end(), b.begin(), b.end());
    return a;
  }

 private:
  engine::Core& core_;
  const int32_t vocab_;
  std::mt19937 random_{5};
  int64_t next_id_ = 0;
};

void Print(const std::string& name, double value, const char* unit) {
  fmt::print("{{\"figure\": \"{}\", \"value\": {:.4g}, \"unit\": \"{}\"}}\n", name, value, unit);
  std::fflush(stdout);
}

// Copies KV blocks out to memory of the host, and as many bytes in beside the pool, without end.
class BlockTraffic {
 public:
  static StatusOr<std::unique_ptr<BlockTraffic>> Start(runtime::DeviceRunner& runner) {
    const int64_t bytes = kTransfers * kBlocks * runner.block_bytes();
    KVASIR_ASSIGN_OR_RETURN(device::DeviceMemory host, runner.device().AllocateHost(2 * bytes));
    KVASIR_ASSIGN_OR_RETURN(device::DeviceMemory beside, runner.device().Allocate(bytes));
    return std::unique_ptr<BlockTraffic>(
        new BlockTraffic(runner, std::move(host), std::move(beside)));
  }

  // Gives as many copies as keep both directions busy until the next call.
  void Feed() {
    if (begin_ == 0) begin_ = Seconds();
    for (int slot = 0; slot < kTransfers; ++slot) {
      uint8_t* const host = host_.bytes() + 2 * slot * kBlocks * bytes_;
      if (Free(outs_[slot])) {
        std::vector<runtime::HostBlock> blocks;
        for (int i = 0; i < kBlocks; ++i) blocks.push_back({slot * kBlocks + i, host + i * bytes_});
        outs_[slot] = runner_.CopyOut(blocks);
      }
      if (Free(ins_[slot])) {
        std::vector<device::Piece> pieces;
        for (int i = 0; i < kBlocks; ++i) {
          pieces.push_back({beside_.bytes() + (slot * kBlocks + i) * bytes_,
                            host + (kBlocks + i) * bytes_, bytes_});
        }
        ins_[slot] = runner_.device().TransferIn(pieces);
      }
    }
  }

  // Of both directions together.
  StatusOr<double> GibPerSecond() {
    for (const auto* slots : {&outs_, &ins_}) {
      for (const auto& transfer : *slots) {
        if (transfer) KVASIR_RETURN_IF_ERROR(runner_.device().Await(*transfer));
      }
    }
    const double bytes = static_cast<double>((ended_ + 2 * kTransfers) * kBlocks * bytes_);
    return bytes / (Seconds() - begin_) / (1 << 30);
  }

 private:
  static constexpr int kTransfers = 8;  // of each direction at once
  static constexpr int kBlocks = 32;    // of a transfer
  using Slot = std::optional<device::Transfer>;

  BlockTraffic(runtime::DeviceRunner& runner, device::DeviceMemory host,
               device::DeviceMemory beside)
      : runner_(runner),
        bytes_(runner.block_bytes()),
        host_(std::move(host)),
        beside_(std::move(beside)) {}

  bool Free(const Slot& slot) {
    if (!slot) return true;
    const bool ended = runner_.device().HasEnded(*slot);
    ended_ += ended;
    return ended;
  }

  runtime::DeviceRunner& runner_;
  const int64_t bytes_;
  const device::DeviceMemory host_, beside_;
  std::vector<Slot> outs_ = std::vector<Slot>(kTransfers), ins_ = std::vector<Slot>(kTransfers);
  int64_t ended_ = 0;
  double begin_ = 0;
};

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

Status MeasureBlockCopies(runtime::DeviceRunner& runner, Bench& bench) {
  KVASIR_ASSIGN_OR_RETURN(const auto traffic, BlockTraffic::Start(runner));
  const double alone = bench.Decode(32, 896, 128);
  const double beside = bench.Decode(32, 896, 128, [&] { traffic->Feed(); });
  KVASIR_ASSIGN_OR_RETURN(const double rate, traffic->GibPerSecond());
  Print("block copies in and out while 32 decode", rate, "GiB/s");
  Print("decode, batch 32, of its rate without them", 100 * beside / alone, "%");
  return absl::OkStatus();
}

// Of a step: each kind of kernel, and all of them, with what is between them left out.
void PrintTimes(const std::string& what, KernelTimes& times, int64_t steps) {
  double all = 0;
  std::vector<std::pair<double, std::string>> lines;
  const auto kinds = times.Take();
  for (const auto& [name, kind] : kinds) all += kind.seconds;
  for (const auto& [name, kind] : kinds) {
    std::string rates;
    if (kind.bytes > 0) {
      rates = fmt::format(", weights at {:.2f} TB/s, {:.0f} TFLOP/s",
                          kind.bytes / kind.seconds / 1e12, kind.flops / kind.seconds / 1e12);
    }
    lines.emplace_back(kind.seconds,
                       fmt::format("  {:5.1f} % {:8.3f} ms  {}{}", 100 * kind.seconds / all,
                                   1e3 * kind.seconds / static_cast<double>(steps), name, rates));
  }
  std::sort(lines.rbegin(), lines.rend());
  fmt::print("{}: kernels take {:.3f} ms\n", what, 1e3 * all / static_cast<double>(steps));
  for (const auto& [seconds, line] : lines) fmt::print("{}\n", line);
  std::fflush(stdout);
}

void Profile(KernelTimes& times, Bench& bench) {
  for (const int batch : {1, 32, 256}) {
    int64_t steps = 0;
    bench.Decode(batch, 896, 64, [&] {
      if (steps++ == 0) times.Take();
    });
    PrintTimes(fmt::format("a step of decodes, batch {}", batch), times, steps);
  }
  bench.Prefill(8, 2048);
  times.Take();
  bench.Prefill(8, 2048);
  PrintTimes("prefill 8 x 2048", times, 1);
}

enum class Part { kShort, kLong, kProfile };

Status Run(bool deterministic, const Shape& shape, Part part) {
  KVASIR_ASSIGN_OR_RETURN(ops::Accelerator accelerator,
                          ops::OpenAccelerator("cuda", deterministic));
  KernelTimes* kernel_times = nullptr;
  if (part == Part::kProfile) {
    auto& device = static_cast<device::CudaDevice&>(*accelerator.device);
    auto timed = std::make_unique<KernelTimes>(std::move(accelerator.kernels), device.stream());
    kernel_times = timed.get();
    accelerator.kernels = std::move(timed);
  }
  KVASIR_ASSIGN_OR_RETURN(const ops::CpuKernels* kernels, ops::SelectKernels("auto"));
  RandomCheckpoint weights(shape);
  const double drawn = Seconds();
  auto pool = std::make_unique<ThreadPool>(static_cast<int>(std::thread::hardware_concurrency()));
  KVASIR_ASSIGN_OR_RETURN(plan::Plan plan,
                          compile::Compile(weights.Make(),
                                           {.kernels = kernels,
                                            .activations = compile::Activations::kBf16,
                                            .max_model_len = 4096,
                                            .max_batch_tokens = 8192},
                                           *pool));
  const double compiled = Seconds();
  ModelInfo info{.name = "random",
                 .vocab_size = shape.vocab,
                 .max_model_len = plan.max_model_len,
                 .block_size = plan.kv.block_size,
                 .eos_ids = {0},
                 .weights_fingerprint = plan.fingerprint,
                 .numerics_id = plan.numerics_id};
  KVASIR_ASSIGN_OR_RETURN(
      auto runner,
      // (What is recorded is not seen kernel by kernel.)
      runtime::DeviceRunner::Create(std::move(plan), {.max_recorded_rows = kernel_times ? 0 : 256},
                                    std::move(pool), std::move(accelerator)));
  Print("compile", compiled - drawn, "s");
  Print("copy in and record", Seconds() - compiled, "s");
  Print("blocks", runner->num_blocks(), "of 16 tokens");
  engine::EngineOptions options{.max_num_seqs = 256,
                                .max_num_batched_tokens = 8192,
                                .max_queue = 1 << 16,
                                .itl_target = std::chrono::milliseconds(500),
                                .prefill_step_target = std::chrono::milliseconds(500)};
  const SteadyClock clock;
  engine::Core core(*runner, info, options, clock);
  Bench bench(core, shape.vocab);
  bench.Prefill(2, 2048);
  bench.Decode(2, 100, 20);
  if (part == Part::kProfile) {
    Profile(*kernel_times, bench);
    return core.CheckIntegrity();
  }
  for (const int batch : {1, 32, 256}) {
    std::vector<double> rates;
    for (int round = 0; round < (batch == 1 ? 3 : 1); ++round) {
      rates.push_back(bench.Decode(batch, 896, 256));
    }
    Print(fmt::format("decode, batch {}", batch), Median(rates), "tok/s");
  }
  const SamplingParams greedy = bench.sampling;
  bench.sampling.temperature = 1;
  bench.sampling.top_k = 50;
  bench.sampling.top_p = 0.95f;
  for (const int batch : {32, 256}) {
    Print(fmt::format("decode, batch {}, sampled of 50 tokens and of 95 %", batch),
          bench.Decode(batch, 896, 256), "tok/s");
  }
  bench.sampling = greedy;
  std::vector<double> rates;
  for (int round = 0; round < 3; ++round) rates.push_back(bench.Prefill(8, 2048));
  Print("prefill 8 x 2048", Median(rates), "tok/s");
  for (const int length : {2048, 512, 128}) {
    std::vector<double> times;
    for (int round = 0; round < 9; ++round) times.push_back(bench.FirstToken(bench.Prompt(length)));
    Print(fmt::format("TTFT of {} tokens", length), 1e3 * Median(times), "ms");
  }
  Print("64 requests at once, 2048 shared + 64 new", bench.Shared(64, 2048, 64), "requests/s");
  KVASIR_RETURN_IF_ERROR(MeasureBlockCopies(*runner, bench));
  const std::vector<TokenId> shared = bench.Prompt(2048);
  bench.FirstToken(shared);
  std::vector<double> times;
  for (int round = 0; round < 9; ++round) {
    times.push_back(bench.FirstToken(bench.Concat(shared, bench.Prompt(64))));
  }
  Print("TTFT on a prefix hit, 2048 + 64", 1e3 * Median(times), "ms");
  if (part == Part::kLong) {
    Print("throughput 1000/1000, 512 prompts", bench.Throughput(512, 1000, 1000), "tok/s");
    Print("throughput 128/128, 2000 prompts", bench.Throughput(2000, 128, 128), "tok/s");
    Print("throughput 2048/128, 400 prompts", bench.Throughput(400, 2048, 128), "tok/s");
  }
  return core.CheckIntegrity();
}

}  // namespace
}  // namespace kvasir

int main(int argc, char** argv) {
  CLI::App app("Figures of a GPU");
  bool deterministic = false, throughput = false, profile = false;
  kvasir::Shape shape;
  app.add_flag("--deterministic", deterministic);
  app.add_flag("--throughput", throughput, "The long ones too (minutes)");
  app.add_flag("--profile", profile, "What each kind of kernel takes, instead");
  app.add_option("--layers", shape.layers);
  CLI11_PARSE(app, argc, argv);
  using kvasir::Part;
  const Part part = profile ? Part::kProfile : throughput ? Part::kLong : Part::kShort;
  const kvasir::Status status = kvasir::Run(deterministic, shape, part);
  if (status.ok()) return 0;
  fmt::print(stderr, "{}\n", status.ToString());
  return 1;
}
