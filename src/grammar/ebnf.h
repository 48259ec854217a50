// Grammars in the EBNF of llama.cpp (GBNF) and XGrammar.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"

namespace kvasir::grammar {

// The same language in llguidance's Lark dialect.
//
//   root ::= "a" ("b" | [^c-e\n])* digits?   # a comment
//   digits ::= [0-9]{1,3}
//
// The rule `root` is the whole output. A text has `\n \r \t \\ \" \' \- \[ \] \xHH \uHHHH
// \UHHHHHHHH`, `.` is any character, and repetitions are `* + ? {n} {n,} {,m} {n,m}`. A rule goes
// on over ends of lines until the next begins. An error names line and column, from 1.
StatusOr<std::string> EbnfToLark(std::string_view ebnf);

}  // namespace kvasir::grammar
