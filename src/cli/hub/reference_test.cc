#include "cli/hub/reference.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace kvasir::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(HubReference, IsOwnerRepositoryAndFile) {
  EXPECT_EQ(ParseHubReference("a/b-1.2")->repository, "a/b-1.2");
  EXPECT_EQ(ParseHubReference("a/b:x/y.gguf")->file, "x/y.gguf");
  for (const char* bad : {"", "a", "/b", "a/", "a/b/c", "../b", "a/..", "a b/c", "a/b:", "a/b:../c",
                          "a/b:/etc/passwd", "a/b:x//y", "a/b:x\\y", "a/b:C:x", "a/b?c", "-a/b"}) {
    EXPECT_FALSE(ParseHubReference(bad).ok()) << bad;
  }
}

std::vector<HubFile> Listing(std::initializer_list<const char*> paths) {
  std::vector<HubFile> files;
  for (const char* path : paths) files.push_back({.path = path, .size = 1});
  return files;
}

std::vector<std::string> Chosen(const StatusOr<HubSelection>& selection) {
  std::vector<std::string> paths;
  if (!selection.ok()) return {std::string(selection.status().message())};
  for (const HubFile& file : selection->files) paths.push_back(file.path);
  paths.push_back("-> " + selection->entry);
  return paths;
}

TEST(SelectFiles, TakesTheOnlyGguf) {
  EXPECT_THAT(Chosen(SelectFiles(Listing({"README.md", "m.gguf", "config.json"}), {"a/b", ""})),
              ElementsAre("m.gguf", "-> m.gguf"));
}

TEST(SelectFiles, WantsANameWhereThereAreSeveral) {
  const auto listing = Listing({"m-Q4_K_M.gguf", "m-Q8_0.gguf"});
  const Status status = SelectFiles(listing, {"a/b", ""}).status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("m-Q4_K_M.gguf"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("m-Q8_0.gguf"));
  EXPECT_THAT(Chosen(SelectFiles(listing, {"a/b", "m-Q8_0.gguf"})),
              ElementsAre("m-Q8_0.gguf", "-> m-Q8_0.gguf"));
  EXPECT_THAT(Chosen(SelectFiles(listing, {"a/b", "q4_k_m"})),
              ElementsAre("m-Q4_K_M.gguf", "-> m-Q4_K_M.gguf"));
  EXPECT_FALSE(SelectFiles(listing, {"a/b", "Q"}).ok());
  EXPECT_TRUE(absl::IsNotFound(SelectFiles(listing, {"a/b", "Q5_0"}).status()));
}

TEST(SelectFiles, KeepsSplitFilesTogether) {
  const auto listing =
      Listing({"m-00002-of-00002.gguf", "m-00001-of-00002.gguf", "n-00001-of-00001.gguf"});
  EXPECT_THAT(
      Chosen(SelectFiles(listing, {"a/b", "m-0000"})),
      ElementsAre("m-00001-of-00002.gguf", "m-00002-of-00002.gguf", "-> m-00001-of-00002.gguf"));
}

TEST(SelectFiles, TakesASafetensorsFolder) {
  EXPECT_THAT(
      Chosen(SelectFiles(Listing({"config.json", "model-1.safetensors", "onnx/model.safetensors",
                                  "pytorch_model.bin", "tokenizer.json"}),
                         {"a/b", ""})),
      ElementsAre("config.json", "model-1.safetensors", "tokenizer.json", "-> "));
  EXPECT_FALSE(SelectFiles(Listing({"model.safetensors"}), {"a/b", ""}).ok());
  EXPECT_FALSE(SelectFiles(Listing({"README.md"}), {"a/b", ""}).ok());
}

TEST(SelectFiles, RefusesPathsThatLeaveTheFolder) {
  for (const char* bad : {"../m.gguf", "/m.gguf", "a/../../m.gguf", "a\\m.gguf", "a\nm.gguf"}) {
    EXPECT_FALSE(SelectFiles(Listing({bad}), {"a/b", ""}).ok()) << bad;
  }
}

}  // namespace
}  // namespace kvasir::cli
