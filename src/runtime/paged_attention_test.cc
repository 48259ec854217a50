#include "runtime/paged_attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "ops/cpu/dispatch.h"

namespace kvasir::runtime {
namespace {

constexpr int32_t kTokens = 32;  // of a block
constexpr int32_t kLayers = 2;

// By type, and whether V is the beginning of K.
class KvBlockTest : public testing::TestWithParam<std::tuple<ops::KvType, bool>> {
 protected:
  KvBlockTest() {
    const bool v_in_k = std::get<bool>(GetParam());
    plan_.heads = 4;
    plan_.key_centers.resize(kLayers);
    if (!v_in_k) plan_.key_centers[1].assign(2 * 48, 0.5f);
    plan_.kernels = *ops::SelectKernels("auto");
    plan_.kv = {.block_size = kTokens,
                .layers = kLayers,
                .kv_heads = v_in_k ? 1 : 2,
                .k_dim = 48,
                .v_dim = 32,
                .v_in_k = v_in_k,
                .type = std::get<ops::KvType>(GetParam())};
    attention_ = *PagedAttention::Create(plan_, /*num_blocks=*/4, pool_);
    std::mt19937 random(7);
    std::normal_distribution<float> normal;
    rows_.resize(kTokens * kLayers * plan_.kv.kv_heads * kRow);
    for (float& x : rows_) x = normal(random);
  }

  // What a token of that position brings for a layer and head: K and behind it V.
  const float* Row(int32_t position, int32_t layer, int32_t head) const {
    return rows_.data() + ((position * kLayers + layer) * plan_.kv.kv_heads + head) * kRow;
  }

  // Stores tokens [start, start + count) into `block`, after copying `from` there if it is set.
  void Store(int32_t start, int32_t count, BlockId block, BlockId from = -1) {
    const std::vector<TokenId> tokens(count, 1);
    const BlockId blocks[] = {block};
    Batch batch;
    if (from >= 0) batch.copies.push_back({from, block});
    batch.sequences.push_back({.tokens = tokens, .start = start, .blocks = blocks});
    BatchRows rows;
    rows.Set(batch);
    attention_->SetBatch(batch, rows);
    for (int32_t r = 0; r < count; ++r) {
      for (int32_t layer = 0; layer < kLayers; ++layer) {
        for (int32_t head = 0; head < plan_.kv.kv_heads; ++head) {
          attention_->StoreK(r, layer, head, Row(start + r, layer, head));
          attention_->StoreV(r, layer, head, Row(start + r, layer, head) + plan_.kv.k_dim);
        }
      }
    }
  }

  std::vector<uint8_t> Bytes(BlockId block) const {
    const auto bytes = attention_->BlockBytes(block);
    return {bytes.begin(), bytes.end()};
  }

  static constexpr int32_t kRow = 48 + 32;
  ThreadPool pool_{1};
  plan::Plan plan_;
  std::unique_ptr<PagedAttention> attention_;
  std::vector<float> rows_;
};

// Whatever a token wrote stays when others come, in whatever chunks and order.
TEST_P(KvBlockTest, ATokensBytesAreItsOwn) {
  Store(0, kTokens, 0);
  const std::vector<uint8_t> whole = Bytes(0);
  std::vector<int> writers(whole.size(), 0);
  std::vector<uint8_t> before = Bytes(1);
  for (int32_t position = kTokens - 1; position >= 0; --position) {
    Store(position, 1, 1);
    const std::vector<uint8_t> now = Bytes(1);
    for (size_t i = 0; i < now.size(); ++i) writers[i] += now[i] != before[i];
    before = now;
  }
  EXPECT_EQ(before, whole);
  EXPECT_LE(*std::max_element(writers.begin(), writers.end()), 1);
  const int64_t written = std::accumulate(writers.begin(), writers.end(), int64_t{0});
  const int64_t held = kLayers * plan_.kv.layer_bytes();
  EXPECT_LE(written, held);
  EXPECT_GT(written, held * 9 / 10);  // the others are zeros
}

TEST_P(KvBlockTest, ACopyGoesOnAsTheBlockItself) {
  Store(0, 7, 0);
  Store(7, 5, 2, /*from=*/0);
  Store(7, 5, 0);
  EXPECT_EQ(Bytes(2), Bytes(0));
}

TEST_P(KvBlockTest, ATokenTakesWhatItsTypeSays) {
  const plan::KvLayout& kv = plan_.kv;
  const int64_t columns = kv.v_in_k ? 48 : 48 + 32;
  const ops::KvTypeInfo info = ops::Info(kv.type);
  EXPECT_EQ(kv.head_bytes(), kTokens * (columns * info.element_bytes + 2 * info.scale_bytes));
  EXPECT_EQ(kv.block_bytes() % 4096, 0);
}

INSTANTIATE_TEST_SUITE_P(Types, KvBlockTest,
                         testing::Combine(testing::Values(ops::KvType::kF32, ops::KvType::kBf16,
                                                          ops::KvType::kInt8, ops::KvType::kFp8),
                                          testing::Bool()),
                         [](const auto& info) {
                           return std::string(ops::Info(std::get<ops::KvType>(info.param)).name) +
                                  (std::get<bool>(info.param) ? "_latent" : "");
                         });

}  // namespace
}  // namespace kvasir::runtime
