#include "api/http/line_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace kvasir::api {
namespace {

std::string Content(const std::string& path) {
  std::ifstream in(path);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

class LineFileTest : public ::testing::Test {
 protected:
  LineFileTest() { std::filesystem::create_directories(directory_); }
  ~LineFileTest() override { std::filesystem::remove_all(directory_); }

  std::unique_ptr<LineFile> Open(size_t max_bytes = 1 << 20) {
    auto file =
        LineFile::Open({.path = path_, .max_bytes = max_bytes, .on_drop = [this](int64_t lines) {
                          dropped_ += lines;
                        }});
    EXPECT_TRUE(file.ok()) << file.status();
    return file.ok() ? *std::move(file) : nullptr;
  }

  const std::string directory_ =
      ::testing::TempDir() + "line_file_test_" + std::to_string(::getpid());
  const std::string path_ = directory_ + "/log";
  std::atomic<int64_t> dropped_{0};
};

TEST_F(LineFileTest, AppendsInOrder) {
  for (const char* line : {"one", "two"}) {
    const auto file = Open();
    file->Write(line);
    file->Write(std::string(5000, 'x'));
  }
  const std::string x(5000, 'x');
  EXPECT_EQ(Content(path_), "one\n" + x + "\ntwo\n" + x + "\n");
  EXPECT_EQ(dropped_, 0);
}

TEST_F(LineFileTest, GoesOnInANewFileWhenReopened) {
  auto file = Open();
  file->Write("before");
  file.reset();
  file = Open();
  std::filesystem::rename(path_, path_ + ".1");
  file->Reopen();
  file->Write("after");
  file.reset();
  EXPECT_EQ(Content(path_ + ".1"), "before\n");
  EXPECT_EQ(Content(path_), "after\n");
}

TEST_F(LineFileTest, KeepsTheOldFileWhenItCannotReopen) {
  auto file = Open();
  std::filesystem::rename(directory_, directory_ + "_moved");
  file->Reopen();
  file->Write("line");
  file.reset();
  EXPECT_EQ(Content(directory_ + "_moved/log"), "line\n");
  std::filesystem::remove_all(directory_ + "_moved");
}

TEST_F(LineFileTest, DropsAndCountsWhatAStuckReaderDoesNotTake) {
  ASSERT_EQ(::mkfifo(path_.c_str(), 0600), 0);
  const int reader = ::open(path_.c_str(), O_RDONLY | O_NONBLOCK);
  ASSERT_GE(reader, 0);
  auto file = Open(/*max_bytes=*/100000);
  const std::string line(999, 'x');
  for (int i = 0; i < 1000; ++i) file->Write(line);  // a megabyte; the pipe holds 64 KiB
  EXPECT_GT(dropped_, 500);
  ::close(reader);  // what still waits is an error now, and lost
  file.reset();
  EXPECT_GT(dropped_, 900);
  EXPECT_LE(dropped_, 1000);
}

TEST_F(LineFileTest, CountsWhatTheDiskRefuses) {
  auto file = LineFile::Open(
      {.path = "/dev/full", .on_drop = [this](int64_t lines) { dropped_ += lines; }});
  ASSERT_TRUE(file.ok()) << file.status();
  (*file)->Write("one");
  (*file)->Write("two");
  file->reset();
  EXPECT_EQ(dropped_, 2);
}

TEST_F(LineFileTest, NamesAFileThatItCannotOpen) {
  EXPECT_EQ(LineFile::Open({.path = "/nonexistent/log"}).status().message(),
            "cannot open /nonexistent/log: No such file or directory");
}

}  // namespace
}  // namespace kvasir::api
