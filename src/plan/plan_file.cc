#include "plan/plan_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include <absl/strings/str_cat.h>
#include <fmt/format.h>

#include "base/mapped_file.h"
#include "plan/check.h"
#include "plan/plan_header.h"

namespace kvasir::plan {
namespace {

using nlohmann::json;

constexpr char kMagic[8] = {'K', 'V', 'A', 'S', 'I', 'R', 'P', 'L'};
constexpr int64_t kAlignment = 4096;
constexpr int64_t kPrefix = sizeof(kMagic) + 2 * sizeof(uint32_t);
constexpr int64_t kMaxHeader = 256 << 20;
constexpr int kMaxNesting = 8;

int64_t Aligned(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

// ---- Writing ----

// A file that is there only once it is whole.
class NewFile {
 public:
  explicit NewFile(const std::string& path)
      : path_(path), part_(fmt::format("{}.{}.part", path, getpid())) {
    file_.reset(std::fopen(part_.c_str(), "wb"));
  }
  ~NewFile() {
    if (file_ != nullptr) std::remove(part_.c_str());
  }

  Status Write(int64_t offset, const void* bytes, int64_t count) {
    if (file_ == nullptr || fseeko(file_.get(), offset, SEEK_SET) != 0 ||
        std::fwrite(bytes, 1, count, file_.get()) != static_cast<size_t>(count)) {
      return Failed();
    }
    return absl::OkStatus();
  }

  Status Publish() {
    if (std::fflush(file_.get()) != 0 || fsync(fileno(file_.get())) != 0 ||
        std::rename(part_.c_str(), path_.c_str()) != 0) {
      return Failed();
    }
    file_.reset();
    return absl::OkStatus();
  }

 private:
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };

  Status Failed() const {
    return absl::UnavailableError(fmt::format("{}: {}", path_, std::strerror(errno)));
  }

  const std::string path_;
  const std::string part_;
  std::unique_ptr<std::FILE, Close> file_;
};

int64_t MatrixBytes(const ops::PanelView& view) { return view.panels * view.panel_bytes; }

int64_t RowBytes(const EmbeddingTable& table) {
  const DTypeInfo info = Info(table.dtype);
  return table.cols / info.block_elements * info.block_bytes;
}

// Where everything will lie behind a header of `header_bytes`.
PlanHeader Place(const CompiledModel& model, const std::vector<SourceFile>& sources,
                 int64_t text_bytes, int64_t header_bytes) {
  PlanHeader out;
  int64_t end = Aligned(kPrefix + header_bytes);
  const auto place = [&](int64_t bytes) {
    const Section section{end, bytes};
    end = Aligned(end + bytes);
    return section;
  };
  out.sources = sources;
  for (const ops::PackedMatrix& m : model.matrices)
    out.matrices.push_back(place(MatrixBytes(m.view)));
  for (const auto& v : model.vectors) out.vectors.push_back(place(4 * v.size()));
  for (const auto& o : model.orders) out.orders.push_back(place(4 * o.size()));
  out.embedding = place(model.embedding.rows * RowBytes(model.embedding));
  out.text = place(text_bytes);
  out.file_bytes = out.text.offset + out.text.bytes;
  return out;
}

// (A model's name may be no UTF-8.)
std::string Rendered(const CompiledModel& model, const PlanHeader& header) {
  return WriteHeader(model, header).dump(-1, ' ', false, json::error_handler_t::replace);
}

// ---- Reading ----

Status Damaged(const std::string& what) { return absl::InvalidArgumentError("plan: " + what); }

StatusOr<absl::Span<const uint8_t>> Find(absl::Span<const uint8_t> file, const Section& section,
                                         int64_t bytes, const char* name) {
  const int64_t size = static_cast<int64_t>(file.size());
  if (section.bytes != bytes || section.offset < 0 || section.offset % kAlignment != 0 ||
      bytes < 0 || section.offset > size - bytes) {
    return Damaged(fmt::format("{} lies outside the file or has another size", name));
  }
  return file.subspan(section.offset, bytes);
}

StatusOr<json> Parse(absl::Span<const uint8_t> bytes, const char* name) {
  bool deep = false;
  const auto shallow = [&](int depth, json::parse_event_t, json&) {
    deep = deep || depth > kMaxNesting;
    return !deep;
  };
  json root = json::parse(bytes.begin(), bytes.end(), shallow, /*allow_exceptions=*/false);
  if (deep || root.is_discarded()) return Damaged(fmt::format("{} is no JSON of ours", name));
  return root;
}

StatusOr<PlanHeader> ReadPrefix(absl::Span<const uint8_t> file) {
  uint32_t numbers[2];
  if (static_cast<int64_t>(file.size()) < kPrefix ||
      std::memcmp(file.data(), kMagic, sizeof(kMagic)) != 0) {
    return Damaged("the magic number is missing");
  }
  std::memcpy(numbers, file.data() + sizeof(kMagic), sizeof(numbers));
  const auto [version, header_bytes] = numbers;
  if (version != kPlanFileVersion) {
    return absl::FailedPreconditionError(fmt::format(
        "plan: has version {}, this program reads {}: build it again", version, kPlanFileVersion));
  }
  if (header_bytes > kMaxHeader || header_bytes > file.size() - kPrefix) {
    return Damaged("the header is cut off");
  }
  KVASIR_ASSIGN_OR_RETURN(const json root,
                          Parse(file.subspan(kPrefix, header_bytes), "the header"));
  StatusOr<PlanHeader> header = ReadHeader(root);
  if (!header.ok()) return Damaged(std::string(header.status().message()));
  if (header->file_bytes != static_cast<int64_t>(file.size())) {
    return Damaged(fmt::format("has {} bytes and should have {}", file.size(), header->file_bytes));
  }
  return header;
}

Status MapMatrices(absl::Span<const uint8_t> file, PlanHeader& header) {
  std::vector<ops::PackedMatrix>& matrices = header.model.matrices;
  if (matrices.size() != header.matrices.size()) return Damaged("matrices without sections");
  for (size_t i = 0; i < matrices.size(); ++i) {
    ops::PanelView& view = matrices[i].view;
    const ops::PanelLayout layout{view.format, view.group};
    const bool grouped = ops::HasGroups(view.format);
    if (view.rows < 1 || view.rows > (1 << 30) || view.cols < 1 || view.cols > (1 << 24) ||
        (grouped ? view.group < ops::kGroup || view.group % ops::kGroup != 0 : view.group != 0) ||
        view.cols % ops::UnitOf(layout).columns != 0) {
      return Damaged(fmt::format("matrix {} has an impossible shape", i));
    }
    view.panels = (view.rows + ops::kPanelRows - 1) / ops::kPanelRows;
    view.panel_bytes = ops::PanelBytes(layout, view.cols);
    KVASIR_ASSIGN_OR_RETURN(const auto bytes,
                            Find(file, header.matrices[i], MatrixBytes(view), "a matrix"));
    view.data = bytes.data();
  }
  return absl::OkStatus();
}

// Copies lists of numbers of four bytes.
template <typename T>
Status CopyLists(absl::Span<const uint8_t> file, const std::vector<Section>& sections,
                 std::vector<std::vector<T>>& out) {
  int64_t total = 0;
  for (const Section& section : sections) {
    if (section.bytes % sizeof(T) != 0) return Damaged("a vector has no whole number of items");
    KVASIR_ASSIGN_OR_RETURN(const auto bytes, Find(file, section, section.bytes, "a vector"));
    total += section.bytes;
    if (total > static_cast<int64_t>(file.size())) return Damaged("vectors share their bytes");
    std::vector<T> values(bytes.size() / sizeof(T));
    std::memcpy(values.data(), bytes.data(), bytes.size());
    out.push_back(std::move(values));
  }
  return absl::OkStatus();
}

Status MapEmbedding(absl::Span<const uint8_t> file, PlanHeader& header) {
  EmbeddingTable& table = header.model.embedding;
  if (table.rows < 1 || table.rows > (1 << 30) || table.cols < 1 || table.cols > (1 << 24) ||
      table.cols % Info(table.dtype).block_elements != 0 || !IsSelfContained(table.dtype)) {
    return Damaged("the embedding has an impossible shape");
  }
  KVASIR_ASSIGN_OR_RETURN(const auto bytes, Find(file, header.embedding,
                                                 table.rows * RowBytes(table), "the embedding"));
  table.data = bytes.data();
  return absl::OkStatus();
}

Status LoadText(absl::Span<const uint8_t> file, PlanHeader& header) {
  KVASIR_ASSIGN_OR_RETURN(const auto bytes,
                          Find(file, header.text, header.text.bytes, "the text files"));
  KVASIR_ASSIGN_OR_RETURN(const json root, Parse(bytes, "what the text files hold"));
  StatusOr<model::TextFiles> text = ReadText(root);
  if (!text.ok()) return Damaged(std::string(text.status().message()));
  header.model.text = *std::move(text);
  return absl::OkStatus();
}

}  // namespace

StatusOr<SourceFile> DescribeFile(const std::string& path) {
  struct stat info;
  if (stat(path.c_str(), &info) != 0) {
    return absl::NotFoundError(fmt::format("{}: {}", path, std::strerror(errno)));
  }
  std::error_code error;
  const std::filesystem::path whole = std::filesystem::absolute(path, error);
  return SourceFile{error ? path : whole.string(), info.st_size,
                    info.st_mtim.tv_sec * int64_t{1'000'000'000} + info.st_mtim.tv_nsec};
}

Status WritePlan(const CompiledModel& model, const std::vector<SourceFile>& sources,
                 const std::string& path, const std::function<void(int64_t, int64_t)>& progress) {
  std::string text;
  try {
    text = WriteText(model.text).dump();
  } catch (const json::type_error&) {
    return absl::InvalidArgumentError(path + ": the vocabulary or the chat template is no UTF-8");
  }
  // The header's size decides where the sections lie, and their places are in it: placed as if it
  // were long, then padded with spaces to that length.
  PlanHeader header = Place(model, sources, text.size(), int64_t{1} << 40);
  const int64_t header_bytes = Rendered(model, header).size();
  header = Place(model, sources, text.size(), header_bytes);
  std::string rendered = Rendered(model, header);
  rendered.resize(header_bytes, ' ');

  NewFile file(path);
  std::string prefix(kMagic, sizeof(kMagic));
  for (const uint32_t number : {kPlanFileVersion, static_cast<uint32_t>(header_bytes)}) {
    prefix.append(reinterpret_cast<const char*>(&number), sizeof(number));
  }
  rendered = prefix + rendered;
  KVASIR_RETURN_IF_ERROR(file.Write(0, rendered.data(), rendered.size()));
  const auto write = [&](const Section& section, const void* bytes) {
    progress(section.offset, header.file_bytes);
    return file.Write(section.offset, bytes, section.bytes);
  };
  for (size_t i = 0; i < model.matrices.size(); ++i) {
    KVASIR_RETURN_IF_ERROR(write(header.matrices[i], model.matrices[i].view.data));
  }
  for (size_t i = 0; i < model.vectors.size(); ++i) {
    KVASIR_RETURN_IF_ERROR(write(header.vectors[i], model.vectors[i].data()));
  }
  for (size_t i = 0; i < model.orders.size(); ++i) {
    KVASIR_RETURN_IF_ERROR(write(header.orders[i], model.orders[i].data()));
  }
  KVASIR_RETURN_IF_ERROR(write(header.embedding, model.embedding.data));
  KVASIR_RETURN_IF_ERROR(write(header.text, text.data()));
  KVASIR_RETURN_IF_ERROR(file.Publish());
  progress(header.file_bytes, header.file_bytes);
  return absl::OkStatus();
}

StatusOr<PlanFile> ParsePlan(absl::Span<const uint8_t> bytes) {
  KVASIR_ASSIGN_OR_RETURN(PlanHeader header, ReadPrefix(bytes));
  KVASIR_RETURN_IF_ERROR(MapMatrices(bytes, header));
  KVASIR_RETURN_IF_ERROR(CopyLists(bytes, header.vectors, header.model.vectors));
  KVASIR_RETURN_IF_ERROR(CopyLists(bytes, header.orders, header.model.orders));
  KVASIR_RETURN_IF_ERROR(MapEmbedding(bytes, header));
  KVASIR_RETURN_IF_ERROR(LoadText(bytes, header));
  const Status sound = CheckModel(header.model);
  if (!sound.ok()) return Damaged(std::string(sound.message()));
  return PlanFile{std::move(header.model), std::move(header.sources)};
}

StatusOr<PlanFile> ReadPlan(const std::string& path) {
  KVASIR_ASSIGN_OR_RETURN(std::unique_ptr<MappedFile> mapped, MappedFile::Open(path));
  StatusOr<PlanFile> out = ParsePlan(mapped->bytes());
  if (!out.ok()) {
    return Status(out.status().code(), absl::StrCat(path, ": ", out.status().message()));
  }
  out->model.source = std::shared_ptr<const MappedFile>(std::move(mapped));
  return out;
}

}  // namespace kvasir::plan
