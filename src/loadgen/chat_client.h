// A conversation with a server in a terminal.
#pragma once

#include <istream>
#include <ostream>
#include <string>

namespace kvasir::loadgen {

struct ChatOptions {
  std::string url = "http://127.0.0.1:8000";
  std::string model;  // empty: the first that the server lists
  std::string api_key;
  bool insecure = false;      // take any certificate of an https server
  std::string system_prompt;  // empty: none
  int max_tokens = 0;         // 0: the server's default
  double temperature = -1;    // below 0: the server's default
};

// Reads a line, streams the answer as it comes, and so on until the input ends or says /quit;
// /reset forgets what was said. An answer that fails is a line of error, and what was asked is
// forgotten. Returns the program's exit code: 1 when the server can't be reached, or the URL is
// none.
int RunChat(const ChatOptions& options, std::istream& in, std::ostream& out);

}  // namespace kvasir::loadgen
