// `kvasir serve`: a model, an engine and the HTTP server over it, in this process.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace kvasir::cli {

struct ServeConfig {
  std::string model = "default";
  std::string served_model_name;
  std::string chat_template;  // path of a Jinja file
  std::string tool_call_parser = "auto";
  std::string reasoning_parser = "auto";
  bool skip_tokenizer_init = false;
  int32_t max_model_len = 0;
  int32_t threads = 0;
  std::string isa = "auto";
  std::string activations = "int8";
  std::string kv_cache_dtype = "bf16";

  int32_t block_size = 16;
  int64_t kv_cache_memory = 0;  // bytes
  int32_t max_num_seqs = 64;
  int32_t max_num_batched_tokens = 2048;
  int32_t max_queue = 1024;
  double max_queue_delay = 0;  // s; 0: the request's own deadline
  int32_t max_drafts = 0;
  bool jump_forward = true;
  bool enable_prefix_caching = true;
  double itl_target = 50;  // ms

  std::string host = "127.0.0.1";
  uint16_t port = 8000;
  std::vector<std::string> api_keys;
  std::string api_keys_file;
  bool cache_salt_per_key = false;
  std::vector<std::string> allowed_origins;
  std::string tls_cert;
  std::string tls_key;
  int64_t max_body_bytes = 16 << 20;
  int64_t max_header_bytes = 32 << 10;
  int32_t max_connections = 1024;
  double request_timeout = 600;  // s
  double drain_timeout = 30;     // s
  int32_t http_threads = 2;
  int32_t text_threads = 1;
  std::string access_log;
  std::string log_level = "info";
};

}  // namespace kvasir::cli
