#include "schedule/next_step.h"

#include <gtest/gtest.h>

#include <deque>

namespace kvasir::schedule {
namespace {

constexpr int32_t kBlock = 16;

// Builds states by hand: the sequences' handles are real, so that the accounting is too.
class NextStepTest : public testing::Test {
 protected:
  struct Held {
    std::vector<kv::BlockRef> refs;
    std::vector<BlockId> ids;
  };

  SequenceView View(int64_t number, int32_t length, int32_t computed) {
    SequenceView view;
    view.rank.number = number;
    view.length = length;
    view.computed = computed;
    return view;
  }

  Held& NewHeld() { return held_.emplace_back(); }

  void AddRunning(int32_t length, int32_t computed) {
    SequenceView view = View(static_cast<int64_t>(running_.size()), length, computed);
    Held& held = NewHeld();
    while (static_cast<int32_t>(held.ids.size()) * kBlock < computed) {
      held.refs.push_back(pool_.Allocate());
      held.ids.push_back(held.refs.back().id());
    }
    view.blocks = held.ids;
    running_.push_back(view);
  }

  // A running sequence that shares every block of the last one.
  void AddFork() {
    SequenceView view = running_.back();
    ++view.rank.number;
    Held& held = NewHeld();
    for (const kv::BlockRef& ref : held_[held_.size() - 2].refs) {
      held.refs.push_back(ref.Share());
      held.ids.push_back(ref.id());
    }
    view.blocks = held.ids;
    running_.push_back(view);
  }

  SequenceView& AddWaiting(int32_t length, int32_t computed = 0) {
    waiting_.push_back(View(100 + static_cast<int64_t>(waiting_.size()), length, computed));
    return waiting_.back();
  }

  // Uses up the pool but for `left` blocks.
  void Occupy(int32_t left) {
    Held& held = NewHeld();
    while (pool_.free() > left) held.refs.push_back(pool_.Allocate());
  }

  const StepPlan& Plan() {
    NextStep({.running = running_,
              .waiting = waiting_,
              .block_size = kBlock,
              .pool = &pool_,
              .model = &model_},
             budget_, &plan_);
    return plan_;
  }

  // "r0:1 w1:64 -2" for running 0 one token, waiting 1 64 tokens, running 2 preempted.
  std::string Text() {
    std::string text;
    Plan();
    for (const auto& c : plan_.compute) {
      absl::StrAppend(&text, text.empty() ? "" : " ", c.waiting ? "w" : "r", c.index, ":",
                      c.tokens);
    }
    for (int32_t i : plan_.preempt) absl::StrAppend(&text, text.empty() ? "" : " ", "-", i);
    return text;
  }

  // The machine takes 1 ms a step, 1 ms a prefill token and 1 ms a decode.
  void Teach() {
    for (int i = 0; i < 400; ++i) {
      perf::StepShape shape;
      const int64_t n = 1 + i % 50;
      if (i % 2) {
        shape.AddPrefill(0, n);
      } else {
        for (int64_t d = 0; d < n; ++d) shape.AddDecode(100);
      }
      model_.Observe(shape, 0.001 + 0.001 * static_cast<double>(n));
    }
  }

  kv::BlockPool pool_{64};
  std::deque<Held> held_;
  std::vector<SequenceView> running_, waiting_;
  perf::StepModel model_;
  Budget budget_{.max_num_seqs = 8, .max_num_batched_tokens = 64};
  StepPlan plan_;
};

TEST_F(NextStepTest, DecodesFirstThenPromptsInRankOrder) {
  budget_.prefill_step_target = budget_.itl_target = 1000;
  AddRunning(40, 20);
  AddRunning(30, 29);
  AddWaiting(10);
  for (int i = 0; i < 100; ++i) model_.Observe({.decodes = 1, .decode_context = 30}, 10);
  EXPECT_EQ(Text(), "r1:1 r0:20 w0:10");
}

TEST_F(NextStepTest, TheTokenCapCutsChunksAtMultiplesOf16) {
  budget_.prefill_step_target = 1000;
  AddWaiting(100, 16);
  EXPECT_EQ(Text(), "w0:64");
  budget_.max_num_batched_tokens = 50;
  EXPECT_EQ(Text(), "w0:50");  // the cap itself, where it is smaller than the rest of the prompt
}

TEST_F(NextStepTest, AStepWithoutDecodesKeepsItsTarget) {
  Teach();
  budget_.max_num_batched_tokens = 1000;
  AddWaiting(600);
  budget_.prefill_step_target = 0.08;
  EXPECT_NEAR(Plan().compute.at(0).tokens, 79, 16);
  EXPECT_LE(model_.Predict(Plan().shape), 0.08);
}

TEST_F(NextStepTest, WithDecodesAStepStretchesSoFarAtMost) {
  Teach();
  budget_.max_num_batched_tokens = 1000;
  for (int i = 0; i < 8; ++i) AddRunning(20, 19);
  running_.back() = View(7, 600, 0);
  const perf::StepShape shape = Plan().shape;
  ASSERT_EQ(shape.decodes, 7);
  EXPECT_EQ(shape.prefill_tokens, 4);
  EXPECT_LE(model_.Predict(shape), kMaxDecodeStretch / model_.overrun() * 0.0082);
}

TEST_F(NextStepTest, APromptAdvancesHoweverLittleTimeThereIs) {
  Teach();
  budget_.itl_target = 1e-9;
  AddRunning(20, 19);
  AddWaiting(100);
  EXPECT_EQ(Text(), "r0:1 w0:4");
}

TEST_F(NextStepTest, SlotsLimitWhatStarts) {
  budget_.prefill_step_target = budget_.itl_target = 1000;
  budget_.max_num_seqs = 2;
  AddWaiting(4).slots = 1;
  AddWaiting(4).slots = 1;
  AddWaiting(4).slots = 1;
  EXPECT_EQ(Text(), "w0:4 w1:4");
  waiting_[1].slots = 2;
  EXPECT_EQ(Text(), "w0:4");
  waiting_[0].slots = 5;  // more than there are: alone
  EXPECT_EQ(Text(), "w0:4");
}

TEST_F(NextStepTest, OneComputesASharedPrefixAndTheOthersWait) {
  budget_.prefill_step_target = 1000;
  budget_.max_num_batched_tokens = 1000;
  const Hash128 hash{{1}};
  for (int i = 0; i < 3; ++i) {
    AddWaiting(40).next_hash = hash;
    waiting_.back().reuses_next = true;
  }
  waiting_[2].next_hash = Hash128{{2}};
  EXPECT_EQ(Text(), "w0:40 w2:40");
  waiting_[1].reuses_next = false;  // the block is its last: it gains nothing by waiting
  EXPECT_EQ(Text(), "w0:40 w1:40 w2:40");
}

TEST_F(NextStepTest, WhoeverIsWaitedForTakesTheWaitersPlace) {
  budget_.prefill_step_target = 1000;
  AddRunning(500, 32);  // of the last rank, computing what the first needs
  running_[0].rank.number = 1000;
  running_[0].next_hash = Hash128{{1}};
  AddWaiting(60).next_hash = Hash128{{1}};
  waiting_[0].reuses_next = true;
  AddWaiting(60);
  EXPECT_EQ(Text(), "r0:64");
}

TEST_F(NextStepTest, WithoutBlocksTheLastInRankIsPreempted) {
  AddRunning(33, 32);
  AddRunning(33, 32);
  AddRunning(33, 32);
  Occupy(0);
  EXPECT_EQ(Text(), "r0:1 r1:1 -2");
}

TEST_F(NextStepTest, TheOneThatNeedsABlockMayBeTheLastInRank) {
  AddRunning(32, 31);
  AddRunning(33, 32);
  Occupy(0);
  EXPECT_EQ(Text(), "r0:1 -1");
}

TEST_F(NextStepTest, ForksCopyTheirTailButForTheLast) {
  AddRunning(21, 20);
  AddFork();
  AddFork();
  Occupy(2);
  EXPECT_EQ(Text(), "r0:1 r1:1 r2:1");
}

// Preempting the one fork ends the need for a copy, although it frees no block.
TEST_F(NextStepTest, PreemptingAForkMakesTheTailWritable) {
  AddRunning(21, 20);
  AddFork();
  Occupy(0);
  EXPECT_EQ(Text(), "r0:1 -1");
}

TEST_F(NextStepTest, NothingStartsWhileSomethingIsPreempted) {
  AddRunning(33, 32);
  AddRunning(33, 32);
  AddWaiting(16);
  Occupy(0);
  EXPECT_EQ(Text(), "r0:1 -1");
}

TEST_F(NextStepTest, APromptStartsOnlyWhereItFitsWhole) {
  budget_.itl_target = 1000;
  AddRunning(20, 19);
  AddWaiting(70);
  AddWaiting(4);
  Occupy(5);  // it needs 5, and one is promised to the running one
  EXPECT_EQ(Text(), "r0:1");
  held_.back().refs.pop_back();
  EXPECT_EQ(Text().substr(0, 8), "r0:1 w0:");
}

TEST_F(NextStepTest, StuckPromptsGiveWayToTheFirst) {
  AddRunning(100, 32);
  AddRunning(100, 32);
  Occupy(0);
  EXPECT_EQ(Text(), "r0:32 -1");
}

TEST_F(NextStepTest, WhatYieldsIsPreemptedOnlyWhereNothingElseCanGoOn) {
  AddRunning(32, 32);
  AddRunning(32, 32);
  running_[0].yields = running_[1].yields = true;
  AddRunning(33, 32);
  AddWaiting(40);
  Occupy(1);
  EXPECT_EQ(Text(), "r2:1");
  running_.pop_back();
  EXPECT_EQ(Text(), "-1");
  running_.pop_back();
  EXPECT_EQ(Text(), "-0");
  running_.clear();
  held_.clear();
  EXPECT_EQ(Text().substr(0, 3), "w0:");
}

TEST_F(NextStepTest, WhatYieldsMakesRoomForTheOnlyOthers) {
  AddRunning(32, 32);
  running_[0].yields = true;
  AddRunning(33, 32);
  Occupy(0);
  EXPECT_EQ(Text(), "-1 -0");  // it goes on alone with the next step
}

TEST_F(NextStepTest, WhatWaitsForAGuideIsWaitedFor) {
  AddRunning(32, 32);
  AddRunning(32, 32);
  running_[0].yields = true;
  AddWaiting(40);
  Occupy(1);
  EXPECT_EQ(Text(), "");
}

TEST_F(NextStepTest, ACachedPrefixThatIsPinnedIsNoLongerAvailable) {
  budget_.prefill_step_target = budget_.itl_target = 1000;
  AddRunning(18, 17);
  Held& cached = NewHeld();
  cached.refs.push_back(pool_.Allocate());
  pool_.SetCached(cached.refs[0].id(), true);
  Occupy(1);
  AddWaiting(20, 16).idle_matched = 1;
  EXPECT_EQ(Text(), "r0:1");  // 2 available, 1 pinned, 1 promised to the running one
  pool_.SetCached(cached.refs[0].id(), false);
}

TEST(RankTest, PrioritiesAreHeadStarts) {
  const TimePoint t = TimePoint(std::chrono::hours(1));
  EXPECT_LT(MakeRank(0, t, 1, 0), MakeRank(0, t, 2, 0));
  EXPECT_LT(MakeRank(0, t, 2, 0), MakeRank(1, t, 1, 0));
  EXPECT_LT(MakeRank(-1, t, 2, 0), MakeRank(0, t, 1, 0));
  EXPECT_LT(MakeRank(1, t, 1, 0), MakeRank(0, t + std::chrono::seconds(11), 2, 0));
  EXPECT_LT(MakeRank(0, t, 1, 0), MakeRank(INT32_MAX, t, 0, 0));
  EXPECT_LT(MakeRank(INT32_MIN, t, 1, 0), MakeRank(0, t, 0, 0));
}

}  // namespace
}  // namespace kvasir::schedule
