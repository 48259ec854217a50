#include "cluster/kv_event_mailbox.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

#include "cluster/testing/teller.h"

namespace kvasir::cluster {
namespace {

constexpr int32_t kBlock = kHashUnitTokens;

class KvEventMailboxTest : public testing::Test {
 protected:
  int wakes_ = 0;
  KvEventMailbox mailbox_{3 * (kBlock + 1), true, [this] { ++wakes_; }};
  Teller teller_{mailbox_};
};

TEST_F(KvEventMailboxTest, JoinsWhatFollowsOneAnother) {
  const Hash128 a = teller_.Store(std::nullopt, 1);
  const Hash128 b = teller_.Store(a, 2);
  const Hash128 c = teller_.Store(std::nullopt, 3);
  const KvEventMailbox::Mail mail = mailbox_.Take();
  ASSERT_EQ(mail.events.size(), 2u);
  const auto& first = std::get<StoredEvent>(mail.events[0]);
  EXPECT_EQ(first.hashes, (std::vector<ExternalHash>{ExternalHash(a), ExternalHash(b)}));
  EXPECT_EQ(first.parent, std::nullopt);
  EXPECT_EQ(first.block_size, kBlock);
  ASSERT_EQ(first.token_ids.size(), 2u * kBlock);
  EXPECT_EQ(first.token_ids.back(), 2);
  EXPECT_EQ(std::get<StoredEvent>(mail.events[1]).hashes,
            std::vector<ExternalHash>{ExternalHash(c)});
  teller_.Remove(c);
  teller_.Remove(b);
  const KvEventMailbox::Mail removed = mailbox_.Take();
  ASSERT_EQ(removed.events.size(), 1u);
  EXPECT_EQ(std::get<RemovedEvent>(removed.events[0]).hashes,
            (std::vector<ExternalHash>{ExternalHash(c), ExternalHash(b)}));
}

TEST_F(KvEventMailboxTest, WakesForTheFirstEventAlone) {
  const Hash128 a = teller_.Store(std::nullopt, 1);
  teller_.Store(a, 2);
  EXPECT_EQ(wakes_, 1);
  mailbox_.Take();
  teller_.Remove(a);
  EXPECT_EQ(wakes_, 2);
}

TEST_F(KvEventMailboxTest, LosesWhatComesWhenItIsFullUntilItIsTaken) {
  const Hash128 a = teller_.Store(std::nullopt, 1);
  teller_.Store(std::nullopt, 2);
  teller_.Store(std::nullopt, 3);
  teller_.Store(std::nullopt, 4);
  teller_.Remove(a);
  KvEventMailbox::Mail mail = mailbox_.Take();
  EXPECT_EQ(mail.events.size(), 3u);
  EXPECT_EQ(mail.lost, 2);
  teller_.Store(a, 5);
  mail = mailbox_.Take();
  EXPECT_EQ(mail.events.size(), 1u);
  EXPECT_EQ(mail.lost, 0);
  EXPECT_EQ(mailbox_.CopyHeld().size(), 3u) << "2, 3, 4; 5 has lost its parent";
}

// Random trees that grow and shrink at their leaves: what is held is as a simple model has it.
TEST_F(KvEventMailboxTest, CopiesWhatIsHeldParentsFirst) {
  std::mt19937 random(3);
  std::map<Hash128, std::optional<Hash128>> model;
  for (int i = 0; i < 4000; ++i) {
    if (i % 40 != 39) {
      auto any = model.begin();
      if (!model.empty()) std::advance(any, random() % model.size());
      const bool first = model.empty() || random() % 8 == 0;
      const auto parent = first ? std::nullopt : std::optional(any->first);
      model.emplace(teller_.Store(parent, static_cast<TokenId>(random() % 1000)), parent);
      continue;
    }
    std::set<Hash128> parents;
    for (const auto& [hash, parent] : model) {
      if (parent) parents.insert(*parent);
    }
    std::erase_if(model, [&](const auto& block) {
      const bool goes = !parents.contains(block.first) && random() % 4 != 0;
      if (goes) teller_.Remove(block.first);
      return goes;
    });
    std::set<Hash128> seen;
    for (const HeldBlock& block : mailbox_.CopyHeld()) {
      EXPECT_TRUE(!block.parent || seen.contains(*block.parent));
      EXPECT_TRUE(seen.insert(block.hash).second);
      EXPECT_EQ(model.at(block.hash), block.parent);
      EXPECT_EQ(block.token_ids.size(), static_cast<size_t>(kBlock));
    }
    EXPECT_EQ(seen.size(), model.size());
  }
}

}  // namespace
}  // namespace kvasir::cluster
