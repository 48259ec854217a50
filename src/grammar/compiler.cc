#include "grammar/compiler.h"

#include <absl/container/flat_hash_map.h>
#include <fmt/format.h>

#include <algorithm>
#include <list>
#include <string>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "grammar/bridged_matcher.h"
#include "grammar/deep_thread.h"
#include "text/bridge.h"

namespace kvasir::grammar {
namespace {

using text::BridgeString;
using text::ToBridge;
using GrammarPtr = std::shared_ptr<const Grammar>;

// Bounds what constraints that take too long can hold; nothing can stop one once it compiles.
constexpr int kMaxRunning = 8;

struct FreeCompiler {
  void operator()(kvb_grammar_compiler* handle) const { kvb_grammar_compiler_free(handle); }
};
using BridgeCompiler = std::unique_ptr<kvb_grammar_compiler, FreeCompiler>;

int32_t KindCode(Constraint::Kind kind) {
  switch (kind) {
    case Constraint::Kind::kJsonSchema:
      return KVB_JSON_SCHEMA;
    case Constraint::Kind::kRegex:
      return KVB_REGEX;
    case Constraint::Kind::kLark:
      return KVB_LARK;
  }
  return -1;
}

std::string_view KindName(Constraint::Kind kind) {
  switch (kind) {
    case Constraint::Kind::kJsonSchema:
      return "JSON schema";
    case Constraint::Kind::kRegex:
      return "regular expression";
    case Constraint::Kind::kLark:
      return "grammar";
  }
  return "constraint";
}

std::string KeyOf(const Constraint& constraint) {
  return fmt::format("{}:{}", KindCode(constraint.kind), constraint.text);
}

// The least recently used go first. Not thread-safe.
class GrammarCache {
 public:
  explicit GrammarCache(size_t capacity) : capacity_(capacity) {}

  GrammarPtr Find(const std::string& key) {
    const auto it = by_key_.find(key);
    if (it == by_key_.end()) return nullptr;
    entries_.splice(entries_.begin(), entries_, it->second);
    return it->second->second;
  }

  // `key` is not in the cache.
  void Add(const std::string& key, GrammarPtr grammar) {
    entries_.emplace_front(key, std::move(grammar));
    by_key_[key] = entries_.begin();
    while (entries_.size() > capacity_) {
      by_key_.erase(entries_.back().first);
      entries_.pop_back();
    }
  }

 private:
  using Entries = std::list<std::pair<std::string, GrammarPtr>>;  // the last used first

  size_t capacity_;
  Entries entries_;
  absl::flat_hash_map<std::string, Entries::iterator> by_key_;
};

// Every compilation has a thread, so that a caller can stop waiting for it.
class BridgedCompiler final : public Compiler {
 public:
  BridgedCompiler(BridgeCompiler handle, int32_t vocab_size, const CompilerOptions& options)
      : handle_(std::move(handle)),
        vocab_size_(vocab_size),
        options_(options),
        cache_(options.cached_grammars) {}

  // Waits for compilations that nobody waits for any more.
  ~BridgedCompiler() override {
    MutexLock lock(mutex_);
    changed_.wait(mutex_, [this] { return running_ == 0; });
  }

  StatusOr<GrammarPtr> Compile(const Constraint& constraint) override {
    if (constraint.text.size() > options_.max_text_bytes) {
      return absl::InvalidArgumentError(fmt::format(
          "{}: longer than {} bytes", KindName(constraint.kind), options_.max_text_bytes));
    }
    const std::string key = KeyOf(constraint);
    MutexLock lock(mutex_);
    if (GrammarPtr cached = cache_.Find(key)) return cached;
    std::shared_ptr<Job>& entry = jobs_[key];
    const bool first = entry == nullptr;
    if (first) entry = std::make_shared<Job>(Job{constraint, key, Now() + options_.timeout});
    const std::shared_ptr<Job> job = entry;
    if (first) Start(job);
    if (!changed_.wait_until(mutex_, job->deadline, [&] { return job->done; })) {
      return TookTooLong(constraint);
    }
    if (job->grammar == nullptr) return Status(job->error, job->message);
    return job->grammar;
  }

 private:
  struct Job {
    Constraint constraint;
    std::string key;
    TimePoint deadline;
    bool done = false;
    GrammarPtr grammar = nullptr;
    // Instead of a grammar. Not a Status, whose counts of references TSan does not see.
    absl::StatusCode error = absl::StatusCode::kOk;
    std::string message = {};
  };

  static TimePoint Now() { return SteadyClock().Now(); }

  void Start(const std::shared_ptr<Job>& job) REQUIRES(mutex_) {
    if (!changed_.wait_until(mutex_, job->deadline, [this] { return running_ < kMaxRunning; })) {
      Finish(*job, absl::ResourceExhaustedError("too many constraints are being compiled"));
      return;
    }
    ++running_;
    const Status started = RunOnDeepThread(KVB_COMPILE_STACK_BYTES, [this, job] { Run(*job); });
    if (started.ok()) return;
    --running_;
    Finish(*job, started);
  }

  void Run(Job& job) {
    const StatusOr<GrammarPtr> result = CompileNow(job.constraint);
    MutexLock lock(mutex_);
    --running_;
    if (result.ok()) cache_.Add(job.key, *result);
    Finish(job, result);
  }

  void Finish(Job& job, const StatusOr<GrammarPtr>& result) REQUIRES(mutex_) {
    job.done = true;
    if (result.ok()) {
      job.grammar = *result;
    } else {
      job.error = result.status().code();
      job.message = std::string(result.status().message());
    }
    jobs_.erase(job.key);
    changed_.notify_all();  // under the lock: the destructor may wait for this
  }

  StatusOr<GrammarPtr> CompileNow(const Constraint& constraint) const {
    BridgeString error;
    BridgeMatcher beginning(kvb_grammar_compile(handle_.get(), KindCode(constraint.kind),
                                                ToBridge(constraint.text), error.out()));
    if (beginning == nullptr) {
      return absl::InvalidArgumentError(
          fmt::format("{}: {}", KindName(constraint.kind), error.view()));
    }
    return MakeGrammar(std::move(beginning), vocab_size_);
  }

  Status TookTooLong(const Constraint& constraint) const {
    return absl::InvalidArgumentError(fmt::format("{}: takes more than {} s to compile",
                                                  KindName(constraint.kind),
                                                  ToSeconds(options_.timeout)));
  }

  const BridgeCompiler handle_;
  const int32_t vocab_size_;
  const CompilerOptions options_;

  Mutex mutex_;
  CondVar changed_;  // a job has its result, or a thread ended
  int running_ GUARDED_BY(mutex_) = 0;
  GrammarCache cache_ GUARDED_BY(mutex_);
  absl::flat_hash_map<std::string, std::shared_ptr<Job>> jobs_ GUARDED_BY(mutex_);
};

void EncodeForBridge(const void* context, kvb_str text, void* to, kvb_push_ids push) {
  const auto& tokenizer = *static_cast<const text::Tokenizer*>(context);
  const StatusOr<std::vector<TokenId>> ids = tokenizer.EncodeContinuation(text::FromBridge(text));
  if (!ids.ok()) return;
  const std::vector<uint32_t> unsigned_ids(ids->begin(), ids->end());
  push(to, unsigned_ids.data(), unsigned_ids.size());
}

}  // namespace

StatusOr<std::unique_ptr<Compiler>> MakeCompiler(const text::Tokenizer& tokenizer,
                                                 int32_t vocab_size,
                                                 absl::Span<const TokenId> eos_ids,
                                                 const CompilerOptions& options) {
  std::vector<std::string> bytes(static_cast<size_t>(vocab_size));
  std::vector<kvb_token> tokens(bytes.size());
  for (TokenId id = 0; id < std::min(vocab_size, tokenizer.vocab_size()); ++id) {
    bytes[id] = tokenizer.TokenBytes(id);
    tokens[id] = {ToBridge(bytes[id]), tokenizer.IsSpecial(id)};
  }
  const std::vector<uint32_t> eos(eos_ids.begin(), eos_ids.end());
  BridgeString error;
  BridgeCompiler handle(kvb_grammar_compiler_new(tokens.data(), tokens.size(), eos.data(),
                                                 eos.size(), {&tokenizer, EncodeForBridge},
                                                 error.out()));
  if (handle == nullptr) return absl::InvalidArgumentError(error.text());
  return std::make_unique<BridgedCompiler>(std::move(handle), vocab_size, options);
}

}  // namespace kvasir::grammar
