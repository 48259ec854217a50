#include "cluster/kv_event_codec.h"

#include <absl/strings/escaping.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>
#include <random>
#include <string>

#include "core/block_hash.h"

namespace kvasir::cluster {
namespace {

using Json = nlohmann::json;
using testing::HasSubstr;

std::vector<uint8_t> Pack(const std::string& json) { return Json::to_msgpack(Json::parse(json)); }

StatusOr<KvEventBatch> Decode(const std::string& json) { return DecodeKvEvents(Pack(json)); }

std::string ErrorOf(const std::string& json) {
  const StatusOr<KvEventBatch> batch = Decode(json);
  EXPECT_EQ(batch.status().code(), absl::StatusCode::kInvalidArgument) << json;
  return std::string(batch.status().message());
}

TEST(DecodeKvEvents, ReadsWhatTheFirstVersionsSent) {
  const auto batch = Decode(R"([1.5, [["BlockStored", [5, -2], null, [1, 2, 3, 4], 2, null],
                                     ["BlockRemoved", [18446744073709551615]],
                                     ["AllBlocksCleared"]]])");
  ASSERT_TRUE(batch.ok()) << batch.status();
  EXPECT_EQ(batch->timestamp, 1.5);
  EXPECT_EQ(batch->data_parallel_rank, std::nullopt);
  ASSERT_EQ(batch->events.size(), 3u);
  const StoredEvent stored{.hashes = {ExternalHash(uint64_t{5}), ExternalHash(~uint64_t{1})},
                           .token_ids = {1, 2, 3, 4},
                           .block_size = 2};
  EXPECT_EQ(std::get<StoredEvent>(batch->events[0]), stored);
  EXPECT_EQ(std::get<RemovedEvent>(batch->events[1]).hashes,
            std::vector<ExternalHash>{ExternalHash(~uint64_t{0})});
  EXPECT_TRUE(std::holds_alternative<ClearedEvent>(batch->events[2]));
}

TEST(DecodeKvEvents, ReadsLaterFieldsAndSkipsUnknownOnes) {
  const auto batch =
      Decode(R"([2, [["BlockStored", [7], 6, [1, 2], 2, 3, "CPU", "lora", [null, ["salt"]], 4,
                      "full_attention", null, "more"],
                     ["BlockRemoved", [7], "CPU", 4, "more"],
                     ["BlockMoved", {"a": 1}]], 8, "more"])");
  ASSERT_TRUE(batch.ok()) << batch.status();
  const StoredEvent stored{.hashes = {ExternalHash(uint64_t{7})},
                           .parent = ExternalHash(uint64_t{6}),
                           .token_ids = {1, 2},
                           .block_size = 2,
                           .lora_id = 3,
                           .medium = "CPU",
                           .lora_name = "lora",
                           .has_extra_keys = true,
                           .group = 4};
  const RemovedEvent removed{.hashes = {ExternalHash(uint64_t{7})}, .medium = "CPU", .group = 4};
  EXPECT_EQ(batch->events, (std::vector<KvEvent>{stored, removed}));
  EXPECT_EQ(batch->data_parallel_rank, 8);
}

TEST(DecodeKvEvents, ReadsMapsAsItReadsArrays) {
  const auto array = Decode(R"([2, [["BlockStored", [7], 6, [1, 2], 2, 3, "CPU", "lora", [null]],
                                    ["BlockRemoved", [7], "CPU"], ["AllBlocksCleared"]], 1])");
  const std::string events = R"([{"type": "BlockStored", "block_hashes": [7], "token_ids": [1, 2],
      "parent_block_hash": 6, "block_size": 2, "lora_id": 3, "medium": "CPU", "lora_name": "lora",
      "extra_keys": [null], "more": {"a": [1]}},
     {"type": "BlockRemoved", "block_hashes": [7], "medium": "CPU"},
     {"type": "AllBlocksCleared"}])";
  const auto maps_in_array = Decode("[2, " + events + ", 1]");
  const auto maps =
      Decode(R"({"ts": 2, "data_parallel_rank": 1, "more": 2, "events": )" + events + "}");
  ASSERT_TRUE(array.ok() && maps_in_array.ok() && maps.ok());
  EXPECT_EQ(*maps_in_array, *array);
  EXPECT_EQ(*maps, *array);
}

// A batch as msgspec 0.22.0, which vLLM encodes with, writes it: as arrays, events as maps, all as
// maps.
TEST(DecodeKvEvents, ReadsWhatMsgspecWrites) {
  std::vector<uint8_t> digest(32);
  std::iota(digest.begin(), digest.end(), uint8_t{1});
  const StoredEvent stored{.hashes = {*ExternalHash::FromBytes(digest), ExternalHash(~uint64_t{0})},
                           .token_ids = {1, 300, 70000, 151643},
                           .block_size = 2,
                           .medium = "GPU",
                           .has_extra_keys = true,
                           .group = 0};
  const RemovedEvent removed{.hashes = {ExternalHash(~uint64_t{1})}, .medium = "GPU", .group = 1};
  const KvEventBatch wanted{
      .timestamp = 2.5, .events = {stored, removed, ClearedEvent{}}, .data_parallel_rank = 0};
  for (const char* hex :
       {"93cb4004000000000000939aab426c6f636b53746f72656492c4200102030405060708090a0b0c0d0e0f"
        "101112131415161718191a1b1c1d1e1f20cfffffffffffffffffc09401cd012cce00011170ce0002505b"
        "02c0a3475055c092c091a1730094ac426c6f636b52656d6f76656491fea34750550191b0416c6c426c6f"
        "636b73436c656172656400",
        "93cb4004000000000000938aa474797065ab426c6f636b53746f726564ac626c6f636b5f686173686573"
        "92c4200102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20cfffffffffffff"
        "ffffb1706172656e745f626c6f636b5f68617368c0a9746f6b656e5f6964739401cd012cce00011170ce"
        "0002505baa626c6f636b5f73697a6502a76c6f72615f6964c0a66d656469756da3475055a96c6f72615f"
        "6e616d65c0aa65787472615f6b65797392c091a173a967726f75705f6964780084a474797065ac426c6f"
        "636b52656d6f766564ac626c6f636b5f68617368657391fea66d656469756da3475055a967726f75705f"
        "6964780181a474797065b0416c6c426c6f636b73436c656172656400",
        "83a27473cb4004000000000000a66576656e7473938aa474797065ab426c6f636b53746f726564ac626c"
        "6f636b5f68617368657392c4200102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d"
        "1e1f20cfffffffffffffffffb1706172656e745f626c6f636b5f68617368c0a9746f6b656e5f69647394"
        "01cd012cce00011170ce0002505baa626c6f636b5f73697a6502a76c6f72615f6964c0a66d656469756d"
        "a3475055a96c6f72615f6e616d65c0aa65787472615f6b65797392c091a173a967726f75705f69647800"
        "84a474797065ac426c6f636b52656d6f766564ac626c6f636b5f68617368657391fea66d656469756da3"
        "475055a967726f75705f6964780181a474797065b0416c6c426c6f636b73436c6561726564b264617461"
        "5f706172616c6c656c5f72616e6b00"}) {
    const std::string bytes = absl::HexStringToBytes(hex);
    const auto batch =
        DecodeKvEvents({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()});
    ASSERT_TRUE(batch.ok()) << batch.status();
    EXPECT_EQ(*batch, wanted);
  }
}

TEST(DecodeKvEvents, NamesTheFieldAtFault) {
  const auto in_event = [](const std::string& fields) {
    return ErrorOf(R"([1, [["AllBlocksCleared"], [)" + fields + "]]]");
  };
  EXPECT_THAT(ErrorOf("3"), HasSubstr("an array or a map"));
  EXPECT_THAT(ErrorOf(R"(["1", []])"), HasSubstr("ts: "));
  EXPECT_THAT(ErrorOf("[1]"), HasSubstr("events: "));
  EXPECT_THAT(ErrorOf("[1, [7]]"), HasSubstr("events[0]: "));
  EXPECT_THAT(ErrorOf("[1, [], 3.5]"), HasSubstr("data_parallel_rank: "));
  EXPECT_THAT(in_event("1"), HasSubstr("events[1]: "));
  EXPECT_THAT(in_event(R"("BlockRemoved")"), HasSubstr("events[1].BlockRemoved.block_hashes: "));
  EXPECT_THAT(in_event(R"("BlockRemoved", [1.5])"), HasSubstr("block_hashes: "));
  EXPECT_THAT(in_event(R"("BlockRemoved", [1], 2)"), HasSubstr("BlockRemoved.medium: "));
  EXPECT_THAT(in_event(R"("BlockStored", [1], "a", [], 1)"), HasSubstr("parent_block_hash: "));
  EXPECT_THAT(in_event(R"("BlockStored", [1], null, [-1], 1)"), HasSubstr("token_ids: "));
  EXPECT_THAT(in_event(R"("BlockStored", [1], null, [4294967296], 1)"), HasSubstr("token_ids: "));
  EXPECT_THAT(in_event(R"("BlockStored", [1], null, [1])"), HasSubstr("block_size: "));
  EXPECT_THAT(in_event(R"("BlockStored", [1], null, [1], 0)"), HasSubstr("block_size: "));
  EXPECT_THAT(in_event(R"("BlockStored", [1], null, [1], 1, "a")"), HasSubstr("lora_id: "));
  EXPECT_THAT(in_event(R"("BlockStored", [1], null, [1], 1, null, null, 1)"),
              HasSubstr("lora_name: "));
  EXPECT_THAT(in_event(R"("BlockStored", [1], null, [1], 1, null, null, null, 1)"),
              HasSubstr("extra_keys: "));
  EXPECT_THAT(in_event(R"("BlockStored", [1], null, [1], 1, 18446744073709551615)"),
              HasSubstr("lora_id: "));
}

TEST(DecodeKvEvents, KeepsToItsLimits) {
  const std::vector<uint8_t> payload = Pack(R"([1, [["BlockRemoved", [1, 2, 3]]]])");
  const auto error = [&](const KvEventLimits& limits) {
    return std::string(DecodeKvEvents(payload, limits).status().message());
  };
  EXPECT_EQ(error({}), "");
  EXPECT_EQ(error({.max_bytes = payload.size(), .max_values = 8, .max_depth = 4}), "");
  EXPECT_THAT(error({.max_bytes = payload.size() - 1}), HasSubstr("bytes"));
  EXPECT_THAT(error({.max_values = 7}), HasSubstr("more than 7 values"));
  EXPECT_THAT(error({.max_depth = 3}), HasSubstr("more than 3 levels"));
}

// A few bytes that claim billions of values, or levels without end.
TEST(DecodeKvEvents, IsNotTakenInByWhatAPayloadClaims) {
  EXPECT_THAT(
      std::string(
          DecodeKvEvents(std::vector<uint8_t>{0xdd, 255, 255, 255, 255}).status().message()),
      HasSubstr("values"));
  EXPECT_THAT(std::string(DecodeKvEvents(std::vector<uint8_t>(1 << 20, 0x91)).status().message()),
              HasSubstr("levels"));
  EXPECT_FALSE(DecodeKvEvents({}).ok());
  EXPECT_FALSE(DecodeKvEvents(std::vector<uint8_t>{0xc1}).ok());
  std::vector<uint8_t> trailing = Pack("[1, []]");
  trailing.push_back(0);
  EXPECT_FALSE(DecodeKvEvents(trailing).ok());
}

// What subscribers see: the eight fields that vLLM always sends, in its order, and a rank.
TEST(EncodeKvEvents, WritesTaggedArrays) {
  const Hash128 root = CacheRoot("a", "b", "", "");
  const StoredEvent stored{
      .hashes = {ExternalHash(root)}, .token_ids = {1, 2}, .block_size = 2, .medium = "GPU"};
  const KvEventBatch batch{
      .timestamp = 0.1, .events = {stored, ClearedEvent{}}, .data_parallel_rank = 0};
  const Json json = Json::from_msgpack(EncodeKvEvents(batch, HashForm::kInt64));
  EXPECT_EQ(json[0], 0.1);
  EXPECT_EQ(json[1][0], Json::array({"BlockStored",
                                     {ExternalHash(root).Low64()},
                                     nullptr,
                                     {1, 2},
                                     2,
                                     nullptr,
                                     "GPU",
                                     nullptr}));
  EXPECT_EQ(json[1][1], Json::array({"AllBlocksCleared"}));
  EXPECT_EQ(json[2], 0);
  const Json bytes = Json::from_msgpack(EncodeKvEvents(batch, HashForm::kBytes))[1][0][1][0];
  EXPECT_EQ(std::vector<uint8_t>(bytes.get_binary()),
            std::vector<uint8_t>(root.bytes.begin(), root.bytes.end()));
}

class RandomBatches {
 public:
  KvEventBatch Next() {
    KvEventBatch batch{.timestamp = Below(1000) / 7.0};
    for (int n = Below(4); n > 0; --n) batch.events.push_back(Event());
    if (Below(2)) batch.data_parallel_rank = Below(8);
    return batch;
  }
  int Below(int n) { return static_cast<int>(random_() % n); }

 private:
  KvEvent Event() {
    const int kind = Below(3);
    if (kind == 0) return ClearedEvent{};
    if (kind == 1) return RemovedEvent{.hashes = Hashes(), .medium = Text()};
    StoredEvent event{.hashes = Hashes(), .block_size = 1 + Below(64), .medium = Text()};
    for (int n = Below(40); n > 0; --n) {
      event.token_ids.push_back(static_cast<TokenId>(random_() >> (33 + Below(30))));
    }
    if (Below(2)) event.parent = Hash();
    if (Below(2)) event.lora_id = static_cast<int64_t>(random_());
    event.lora_name = Text();
    return event;
  }
  ExternalHash Hash() {
    std::vector<uint8_t> bytes(1 + Below(ExternalHash::kMaxBytes));
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random_());
    return *ExternalHash::FromBytes(bytes);
  }
  std::vector<ExternalHash> Hashes() {
    std::vector<ExternalHash> hashes(Below(4));
    for (ExternalHash& hash : hashes) hash = Hash();
    return hashes;
  }
  std::optional<std::string> Text() {
    if (Below(2)) return std::nullopt;
    return std::string(Below(40), static_cast<char>(Below(256)));
  }

  std::mt19937_64 random_{7};
};

TEST(KvEventCodec, ReadsWhatItWrites) {
  RandomBatches batches;
  for (int i = 0; i < 300; ++i) {
    const KvEventBatch batch = batches.Next();
    const auto read = DecodeKvEvents(EncodeKvEvents(batch, HashForm::kBytes));
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(*read, batch);
  }
}

// Whatever becomes of a payload, it is read or refused; cut short, it is always refused.
TEST(KvEventCodec, SurvivesWhatIsDamaged) {
  RandomBatches batches;
  for (int i = 0; i < 300; ++i) {
    std::vector<uint8_t> payload = EncodeKvEvents(batches.Next(), HashForm::kBytes);
    const std::vector<uint8_t> cut(
        payload.begin(), payload.begin() + batches.Below(static_cast<int>(payload.size())));
    EXPECT_FALSE(DecodeKvEvents(cut).ok());
    for (int flips = 1 + batches.Below(4); flips > 0; --flips) {
      payload[batches.Below(static_cast<int>(payload.size()))] ^= 1 << batches.Below(8);
    }
    DecodeKvEvents(payload).IgnoreError();
  }
}

}  // namespace
}  // namespace kvasir::cluster
