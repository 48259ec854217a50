// How many drafts a sequence should try: as many as are expected to pay, by its own record and the
// predicted times. Pure.
#pragma once

#include <cstdint>

namespace kvasir::engine {

struct DraftCost {
  double step = 0;     // predicted seconds of the step without drafts, > 0
  double draft = 0;    // predicted seconds that each draft adds
  int32_t tokens = 1;  // that the step yields without drafts
};

// What one sequence's drafts have been worth, in tokens and in seconds. A value.
class DraftRecord {
 public:
  // `tried` drafts were computed, the first `kept` of which came true.
  void Observe(int32_t tried, int32_t kept);

  // The chance that a draft comes true when those before it did.
  double chance() const;

  // A step passes, in which the sequence could try. What drafts may lose is a small share of the
  // time that has passed (what a smaller model reads before its first draft is ReadingAccount's): a
  // record that owes more tries nothing.
  void Pass(double step_seconds);
  void Spend(double seconds) { balance_ -= seconds; }
  void Earn(double seconds) { balance_ += seconds; }
  bool owes() const { return balance_ < 0; }

  // A record that says no is asked again every so often, as what is written changes.
  bool ShouldProbe() const { return skipped_ >= kProbeEvery && !owes(); }
  void Skip() { ++skipped_; }

 private:
  static constexpr int32_t kProbeEvery = 48;
  double hits_ = 0;  // decayed
  double misses_ = 0;
  int32_t skipped_ = 0;   // proposals in a row that were not tried
  double balance_ = 0;    // seconds
  bool started_ = false;  // the balance has had its first credit
};

// Seconds that `kept` drafts saved: as many tokens came without a step of their own.
inline double SavedBy(int32_t kept, const DraftCost& cost) {
  return kept * cost.step / cost.tokens;
}

// What the drafts of a smaller model have been worth to all sequences together. Before it can draft
// for one it must read it, and that is paid with what its drafts saved before and with a small
// share of the time that has passed. A value.
class ReadingAccount {
 public:
  // A step of decodes passes.
  void Pass(double step_seconds);
  void Spend(double seconds) { balance_ -= seconds; }
  void Earn(double seconds) { balance_ += seconds; }
  bool Affords(double seconds) const { return balance_ >= seconds; }

 private:
  double balance_ = 0;
  bool started_ = false;
};

// The number of drafts, up to `most`, with the most expected tokens a second; 0: none pays.
int32_t BestDrafts(double chance, int32_t most, const DraftCost& cost);

}  // namespace kvasir::engine
