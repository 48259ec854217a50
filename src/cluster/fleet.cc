#include "cluster/fleet.h"

#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <map>
#include <thread>
#include <utility>

#include "base/log.h"
#include "base/mutex.h"

namespace kvasir::cluster {
namespace {

constexpr size_t kNone = static_cast<size_t>(-1);
// How often it is looked for a healthy member, for requests that have none.
constexpr std::chrono::milliseconds kLookInterval{20};
// A request that loses so many members, in a row without hearing of them or in all, may well be
// what they die of.
constexpr int32_t kMostSilentLosses = 5;
constexpr int32_t kMostLosses = 64;

int64_t TokensOf(const Request& request) {
  return static_cast<int64_t>(request.prompt_ids.size()) +
         int64_t{request.sampling.n} * request.sampling.max_tokens;
}

}  // namespace

struct Fleet::State {
  State(std::vector<Member> all, ModelInfo served, Duration grace)
      : members(std::move(all)),
        model(std::move(served)),
        patience(grace),
        tokens(members.size()),
        refused(members.size()) {}

  // A member for a request, not `lost` if there is another; kNone where none is healthy. Its tokens
  // count as the member's until Leave().
  size_t Enter(const Request& request, size_t lost) EXCLUDES(mutex) {
    std::vector<bool> able(members.size());
    for (size_t i = 0; i < members.size(); ++i) able[i] = Serves(i);
    MutexLock lock(mutex);
    size_t best = kNone;
    for (size_t i = 0; i < members.size(); ++i) {
      if (!able[i]) continue;
      const bool better = best == kNone || best == lost || (i != lost && tokens[i] < tokens[best]);
      if (better) best = i;
    }
    if (best != kNone) tokens[best] += TokensOf(request);
    return best;
  }

  void Leave(const Request& request, size_t member) EXCLUDES(mutex) {
    MutexLock lock(mutex);
    tokens[member] -= TokensOf(request);
  }

  // Healthy, and of the same model.
  bool Serves(size_t i) EXCLUDES(mutex) {
    if (!members[i].engine->Healthy()) return false;
    const ModelInfo& other = members[i].engine->Model();
    const bool same = other.weights_fingerprint == model.weights_fingerprint &&
                      other.numerics_id == model.numerics_id &&
                      other.max_model_len == model.max_model_len;
    MutexLock lock(mutex);
    if (!same && !refused[i]) {
      refused[i] = true;
      spdlog::error(
          "{} gets no requests: it has weights {}, numerics {} and a context of {}, the fleet {}, "
          "{} and {}",
          members[i].name, other.weights_fingerprint, other.numerics_id, other.max_model_len,
          model.weights_fingerprint, model.numerics_id, model.max_model_len);
    }
    return same;
  }

  const std::vector<Member> members;
  const ModelInfo model;
  const Duration patience;

  Mutex mutex;
  CondVar changed;
  std::vector<int64_t> tokens GUARDED_BY(mutex);  // of each member: prompts and outputs to come
  std::vector<bool> refused GUARDED_BY(mutex);    // of each member: it was said so
  std::map<std::string, std::shared_ptr<Replay>> in_flight GUARDED_BY(mutex);
  std::deque<std::shared_ptr<Replay>> homeless GUARDED_BY(mutex);  // lost their member
  bool stopping GUARDED_BY(mutex) = false;
};

// A request on its way through the fleet. Each attempt has a sink of its own, so that what a lost
// member still says is not taken for what its successor does.
class Fleet::Replay : public std::enable_shared_from_this<Replay> {
 public:
  Replay(std::shared_ptr<State> state, std::shared_ptr<const Request> request,
         std::shared_ptr<TokenSink> sink)
      : state_(std::move(state)),
        request_(std::move(request)),
        sink_(std::move(sink)),
        choices_(request_->sampling.n),
        open_(request_->sampling.n) {}

  const Request& request() const { return *request_; }
  TimePoint homeless_since() const { return homeless_since_; }
  bool LosesTooMany() const EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    return silent_losses_ >= kMostSilentLosses || losses_ >= kMostLosses;
  }
  // Whose loss made it homeless.
  size_t lost() const EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    return lost_;
  }

  // Hands the request to `member`, whom State::Enter gave.
  Status Begin(size_t member) EXCLUDES(mutex_) {
    int32_t attempt = 0;
    {
      MutexLock lock(mutex_);
      attempt = ++attempt_;
      member_ = member;
      prompt_.seen = 0;
      for (Choice& choice : choices_) choice.seen = 0;
    }
    EngineClient& engine = *state_->members[member].engine;
    const Status taken =
        engine.Submit(request_, std::make_shared<Attempt>(shared_from_this(), attempt));
    if (!taken.ok()) {
      MutexLock lock(mutex_);
      if (attempt_ == attempt) member_ = kNone;
      state_->Leave(*request_, member);
      return taken;
    }
    for (const int32_t choice : Unwanted()) engine.Cancel(request_->id, choice);
    return absl::OkStatus();
  }

  void Cancel(std::optional<int32_t> choice) EXCLUDES(mutex_) {
    size_t member = kNone;
    {
      MutexLock lock(mutex_);
      for (size_t c = 0; c < choices_.size(); ++c) {
        if (!choice || *choice == static_cast<int32_t>(c)) choices_[c].cancelled = true;
      }
      member = member_;
    }
    if (member != kNone) state_->members[member].engine->Cancel(request_->id, choice);
  }

  // Of one that has no member: ends what was cancelled meanwhile. True when nothing is left.
  bool EndCancelled() EXCLUDES(mutex_) {
    return EndOpen([](const Choice& choice) { return choice.cancelled; },
                   {.finish = FinishReason::kCancelled});
  }

  void Fail(const Status& error) EXCLUDES(mutex_) {
    EndOpen([](const Choice&) { return true; }, {.finish = FinishReason::kError, .error = error});
  }

 private:
  // What came of a part of the answer, in all attempts and in this one.
  struct Progress {
    size_t delivered = 0;
    size_t seen = 0;

    // Takes off what was delivered before.
    void Trim(std::vector<TokenOut>& tokens) {
      const size_t known = std::min(tokens.size(), delivered - std::min(delivered, seen));
      seen += tokens.size();
      tokens.erase(tokens.begin(), tokens.begin() + static_cast<ptrdiff_t>(known));
      delivered = std::max(delivered, seen);
    }
  };
  struct Choice : Progress {
    bool finished = false;
    bool cancelled = false;
  };

  class Attempt final : public TokenSink {
   public:
    Attempt(std::shared_ptr<Replay> replay, int32_t number)
        : replay_(std::move(replay)), number_(number) {}
    void OnEvent(TokenEvent event) override { replay_->Take(number_, std::move(event)); }

   private:
    const std::shared_ptr<Replay> replay_;
    const int32_t number_;
  };

  // Choices that need not be computed again, and those that were cancelled before the member knew
  // of them. Beams that are done are searched again: of them only the best are choices.
  std::vector<int32_t> Unwanted() const EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    std::vector<int32_t> out;
    for (size_t c = 0; c < choices_.size(); ++c) {
      const bool done = choices_[c].finished && !request_->beams;
      if (done || choices_[c].cancelled) out.push_back(static_cast<int32_t>(c));
    }
    return out;
  }

  void Take(int32_t attempt, TokenEvent event) EXCLUDES(mutex_) {
    size_t left = kNone;
    bool lost = false, over = false;
    {
      MutexLock lock(mutex_);
      if (attempt != attempt_ || member_ == kNone) return;
      lost = event.finish == FinishReason::kError && absl::IsUnavailable(event.error);
      if (lost) {
        lost_ = left = std::exchange(member_, kNone);
        ++losses_;
        ++silent_losses_;
      } else {
        over = Deliver(std::move(event));
        if (over) left = std::exchange(member_, kNone);
      }
    }
    if (left != kNone) state_->Leave(*request_, left);
    if (lost) Mourn();
    if (over) Forget();
  }

  // True when the last choice has finished.
  bool Deliver(TokenEvent event) REQUIRES(mutex_) {
    if (event.choice < 0 || event.choice >= static_cast<int32_t>(choices_.size())) return false;
    silent_losses_ = 0;
    Choice& choice = choices_[event.choice];
    if (choice.finished) return false;
    choice.Trim(event.tokens);
    prompt_.Trim(event.prompt);
    if (!event.embedding.empty() && std::exchange(embedded_, true)) event.embedding.clear();
    if (!cached_tokens_) cached_tokens_ = event.cached_tokens;
    event.cached_tokens = *cached_tokens_;
    const bool news =
        event.finish || !event.tokens.empty() || !event.prompt.empty() || !event.embedding.empty();
    if (!news) return false;
    if (event.finish) {
      choice.finished = true;
      --open_;
    }
    sink_->OnEvent(std::move(event));
    return open_ == 0;
  }

  // Its member is gone: it waits for another.
  void Mourn() {
    homeless_since_ = std::chrono::steady_clock::now();
    MutexLock lock(state_->mutex);
    if (state_->stopping) return;
    state_->homeless.push_back(shared_from_this());
    state_->changed.notify_all();
  }

  void Forget() {
    MutexLock lock(state_->mutex);
    state_->in_flight.erase(request_->id);
  }

  template <class Which>
  bool EndOpen(const Which& which, const TokenEvent& end) EXCLUDES(mutex_) {
    bool over = false;
    {
      MutexLock lock(mutex_);
      for (size_t c = 0; c < choices_.size(); ++c) {
        if (choices_[c].finished || !which(choices_[c])) continue;
        choices_[c].finished = true;
        --open_;
        TokenEvent event = end;
        event.choice = static_cast<int32_t>(c);
        event.cached_tokens = cached_tokens_.value_or(0);
        sink_->OnEvent(std::move(event));
      }
      over = open_ == 0;
    }
    if (over) Forget();
    return over;
  }

  const std::shared_ptr<State> state_;
  const std::shared_ptr<const Request> request_;
  const std::shared_ptr<TokenSink> sink_;
  TimePoint homeless_since_{};  // of the thread that has it

  mutable Mutex mutex_;
  int32_t attempt_ GUARDED_BY(mutex_) = 0;
  size_t member_ GUARDED_BY(mutex_) = kNone;
  size_t lost_ GUARDED_BY(mutex_) = kNone;
  int32_t losses_ GUARDED_BY(mutex_) = 0;         // of members
  int32_t silent_losses_ GUARDED_BY(mutex_) = 0;  // the last of them, without an event in between
  std::vector<Choice> choices_ GUARDED_BY(mutex_);
  Progress prompt_ GUARDED_BY(mutex_);
  bool embedded_ GUARDED_BY(mutex_) = false;
  std::optional<int32_t> cached_tokens_ GUARDED_BY(mutex_);  // of the first attempt
  int32_t open_ GUARDED_BY(mutex_);
};

Fleet::Fleet(std::vector<Member> members, ModelInfo model, Duration patience)
    : state_(std::make_shared<State>(std::move(members), std::move(model), patience)),
      mover_([this] { Move(); }) {}

Fleet::~Fleet() {
  std::map<std::string, std::shared_ptr<Replay>> rest;
  {
    MutexLock lock(state_->mutex);
    state_->stopping = true;
    state_->changed.notify_all();
  }
  mover_.join();
  {
    MutexLock lock(state_->mutex);
    state_->homeless.clear();
    rest = std::exchange(state_->in_flight, {});
  }
  for (const auto& [id, replay] : rest) {
    replay->Cancel(std::nullopt);
    replay->Fail(absl::UnavailableError("the fleet is shutting down"));
  }
}

const ModelInfo& Fleet::Model() const { return state_->model; }

Status Fleet::Submit(std::shared_ptr<const Request> request, std::shared_ptr<TokenSink> sink) {
  const auto replay = std::make_shared<Replay>(state_, request, std::move(sink));
  {
    MutexLock lock(state_->mutex);
    if (!state_->in_flight.emplace(request->id, replay).second) {
      return absl::InvalidArgumentError(fmt::format("id: {} is in flight", request->id));
    }
  }
  Status taken = absl::UnavailableError("no worker is ready");
  size_t lost = kNone;
  for (size_t i = 0; i < state_->members.size() && absl::IsUnavailable(taken); ++i) {
    const size_t member = state_->Enter(*request, lost);
    if (member == kNone) break;
    taken = replay->Begin(member);
    lost = member;
  }
  if (!taken.ok()) {
    MutexLock lock(state_->mutex);
    state_->in_flight.erase(request->id);
  }
  return taken;
}

void Fleet::Cancel(const std::string& request_id, std::optional<int32_t> choice) {
  std::shared_ptr<Replay> replay;
  {
    MutexLock lock(state_->mutex);
    const auto it = state_->in_flight.find(request_id);
    if (it == state_->in_flight.end()) return;
    replay = it->second;
  }
  replay->Cancel(choice);
}

EngineStats Fleet::Stats() const {
  EngineStats out;
  for (const Member& member : state_->members) {
    const EngineStats stats = member.engine->Stats();
    out.running += stats.running;
    out.waiting += stats.waiting;
    out.blocks_total += stats.blocks_total;
    out.blocks_held += stats.blocks_held;
    out.blocks_cached += stats.blocks_cached;
  }
  return out;
}

bool Fleet::Healthy() const {
  for (size_t i = 0; i < state_->members.size(); ++i) {
    if (state_->Serves(i)) return true;
  }
  return false;
}

// Finds a member for each request that has lost its own.
void Fleet::Move() {
  while (true) {
    std::deque<std::shared_ptr<Replay>> homeless;
    {
      MutexLock lock(state_->mutex);
      while (!state_->stopping && state_->homeless.empty()) state_->changed.wait(state_->mutex);
      if (state_->stopping) return;
      homeless = std::exchange(state_->homeless, {});
    }
    std::deque<std::shared_ptr<Replay>> waiting;
    for (std::shared_ptr<Replay>& replay : homeless) {
      if (!Resume(*replay)) waiting.push_back(std::move(replay));
    }
    if (waiting.empty()) continue;
    MutexLock lock(state_->mutex);
    state_->homeless.insert(state_->homeless.end(), waiting.begin(), waiting.end());
    const auto until = std::chrono::steady_clock::now() + kLookInterval;
    while (!state_->stopping && std::chrono::steady_clock::now() < until) {
      state_->changed.wait_until(state_->mutex, until);
    }
  }
}

// False when it has to wait.
bool Fleet::Resume(Replay& replay) {
  if (replay.EndCancelled()) return true;
  if (replay.LosesTooMany()) {
    replay.Fail(absl::UnavailableError("the request lost one worker after the other"));
    return true;
  }
  const size_t member = state_->Enter(replay.request(), replay.lost());
  if (member != kNone) {
    spdlog::info("request {} goes on at {}", replay.request().id, state_->members[member].name);
    const Status taken = replay.Begin(member);
    if (taken.ok()) return true;
    if (!absl::IsUnavailable(taken)) {
      replay.Fail(taken);
      return true;
    }
  }
  const TimePoint now = std::chrono::steady_clock::now();
  const TimePoint last =
      std::min(replay.request().deadline, replay.homeless_since() + state_->patience);
  if (now < last) return false;
  replay.Fail(absl::UnavailableError("the worker was lost, and no other took over in time"));
  return true;
}

}  // namespace kvasir::cluster
