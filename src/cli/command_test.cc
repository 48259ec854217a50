#include "cli/command.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

namespace kvasir::cli {
namespace {

TEST(ParseBytes, KnowsItsUnits) {
  EXPECT_EQ(*ParseBytes("123"), 123);
  EXPECT_EQ(*ParseBytes("4GiB"), int64_t{4} << 30);
  EXPECT_EQ(*ParseBytes("1.5 MiB"), 3 << 19);
  EXPECT_EQ(*ParseBytes("2gb"), 2000000000);
  EXPECT_EQ(*ParseBytes("8G"), int64_t{8} << 30);
  for (const char* bad : {"", "GiB", "-1", "x", "1XiB", "nan", "inf", "1e30"}) {
    EXPECT_FALSE(ParseBytes(bad).ok()) << bad;
  }
}

class CommandTest : public ::testing::Test {
 protected:
  CommandTest() : command_(program_, "go", "Goes.", [] { return 0; }) {
    command_.Add("count", &count_, "How many.");
    command_.Add("name", &names_, "Who.");
    command_.AddSwitch("fast", &fast_, "Whether.");
    command_.AddBytes("memory", &memory_, "How much.");
    command_.AddPositional("model", &model_, "Which.");
    command_.AddConfigFile();
    path_ = ::testing::TempDir() + "/command_test.toml";
  }
  ~CommandTest() override {
    ::unsetenv("KVASIR_COUNT");
    ::unsetenv("KVASIR_FAST");
  }

  Status Run(std::vector<std::string> args, const std::string& toml = "") {
    if (!toml.empty()) {
      std::ofstream(path_) << toml;
      args.push_back("--config=" + path_);
    }
    std::vector<std::string> reversed(args.rbegin(), args.rend());
    reversed.push_back("go");
    try {
      program_.parse(reversed);
    } catch (const CLI::Error& e) {
      return absl::InvalidArgumentError(e.what());
    }
    return command_.Run().status();
  }

  CLI::App program_;
  Command command_;
  int32_t count_ = 1;
  std::vector<std::string> names_;
  bool fast_ = true;
  int64_t memory_ = 7;
  std::string model_ = "default";
  std::string path_;
};

TEST_F(CommandTest, KeepsDefaults) {
  ASSERT_TRUE(Run({}).ok());
  EXPECT_EQ(count_, 1);
  EXPECT_TRUE(fast_);
  EXPECT_EQ(model_, "default");
}

TEST_F(CommandTest, TakesFlags) {
  ASSERT_TRUE(
      Run({"--count", "3", "--name=a", "--no-fast", "--memory=1KiB", "--name", "b", "m"}).ok());
  EXPECT_EQ(count_, 3);
  EXPECT_EQ(names_, (std::vector<std::string>{"a", "b"}));
  EXPECT_FALSE(fast_);
  EXPECT_EQ(memory_, 1024);
  EXPECT_EQ(model_, "m");
}

TEST_F(CommandTest, SaysWhatWasGivenUnderAHeading) {
  int32_t size = 0;
  bool loud = false;
  command_.SetGroup("Others");
  command_.Add("size", &size, "How big.");
  command_.AddSwitch("loud", &loud, "Whether.");
  ::setenv("KVASIR_COUNT", "5", 1);
  ASSERT_TRUE(Run({"--name=a", "--name=b c", "--no-loud"}, "size = 3\n").ok());
  EXPECT_EQ(command_.Given("Options"),
            (std::vector<std::string>{"--count=5", "--name=a", "--name=b c", "--config=" + path_}));
  EXPECT_EQ(command_.Given("Others"), (std::vector<std::string>{"--size=3", "--loud=false"}));
}

TEST_F(CommandTest, TakesAFile) {
  ASSERT_TRUE(Run({},
                  "count = 4\nname = [\"x\", \"y\"]\nfast = false\nmemory = \"2KiB\"\n"
                  "model = \"m\"\n")
                  .ok());
  EXPECT_EQ(count_, 4);
  EXPECT_EQ(names_, (std::vector<std::string>{"x", "y"}));
  EXPECT_FALSE(fast_);
  EXPECT_EQ(memory_, 2048);
  EXPECT_EQ(model_, "m");
}

TEST_F(CommandTest, FlagsBeatTheEnvironmentAndThatBeatsTheFile) {
  ::setenv("KVASIR_COUNT", "5", 1);
  ::setenv("KVASIR_FAST", "false", 1);
  ASSERT_TRUE(Run({"--fast"}, "count = 4\nfast = false\nmemory = 9").ok());
  EXPECT_EQ(count_, 5);
  EXPECT_TRUE(fast_);
  EXPECT_EQ(memory_, 9);
}

TEST_F(CommandTest, RefusesWhatItDoesNotKnow) {
  EXPECT_FALSE(Run({"--cuont=3"}).ok());
  EXPECT_FALSE(Run({"--count=many"}).ok());
  EXPECT_FALSE(Run({"--memory=lots"}).ok());
  EXPECT_FALSE(Run({"--config=/nonexistent.toml"}).ok());
}

TEST_F(CommandTest, NamesTheKeyAtFault) {
  EXPECT_EQ(Run({}, "cuont = 4").message(), path_ + ": unknown key 'cuont'");
}

TEST_F(CommandTest, RefusesValuesOfTheWrongType) {
  EXPECT_FALSE(Run({}, "count = \"x\"").ok());
  EXPECT_FALSE(Run({}, "count = { a = 1 }").ok());
}

TEST_F(CommandTest, NamesTheLineOfASyntaxError) {
  EXPECT_NE(std::string(Run({}, "count = 4\nfast =\n").message()).find("line 2"),
            std::string::npos);
}

}  // namespace
}  // namespace kvasir::cli
