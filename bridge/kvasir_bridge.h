/* The C ABI of the Rust library in this folder.
 *
 * Conventions. Strings are (pointer, length), UTF-8, not terminated. A function that can fail takes
 * `error` last: on failure it returns null, false or -1 and, when `error` is not null, stores a
 * message there that the caller frees with kvb_string_free; on success `error` is left alone. No
 * panic crosses this border. Handles are immutable and may be used from any number of threads,
 * except matchers, which change; freeing one needs that nobody uses it. Every pointer is valid for
 * the call only.
 */
#ifndef KVASIR_BRIDGE_H_
#define KVASIR_BRIDGE_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
  const char* data;
  size_t len;
} kvb_str; /* borrowed */

typedef struct {
  char* data;
  size_t len;
} kvb_string; /* owned by the receiver: kvb_string_free */

typedef struct {
  uint32_t* data;
  size_t len;
} kvb_ids; /* owned by the receiver: kvb_ids_free */

void kvb_string_free(kvb_string text);
void kvb_ids_free(kvb_ids ids);

/* ---- Tokenizers ---- */

typedef struct kvb_tokenizer kvb_tokenizer;

/* From the content of a tokenizer.json file. Its truncation and padding are ignored. */
kvb_tokenizer* kvb_tokenizer_from_json(kvb_str json, kvb_string* error);

/* A BPE tokenizer from its arrays. A token's place in `tokens` is its id; `merges` holds
 * 2 * merge_count strings, left and right of each, best first. `spec_json` is an object:
 *   normalizer, pre_tokenizer  as in tokenizer.json, or null
 *   unk_token                  a string or null
 *   byte_fallback, fuse_unk, ignore_merges  booleans
 *   special_ids, added_ids     ids of control tokens and of tokens that are matched as a whole */
kvb_tokenizer* kvb_tokenizer_from_bpe(kvb_str spec_json, const kvb_str* tokens, size_t token_count,
                                      const kvb_str* merges, size_t merge_count, kvb_string* error);

void kvb_tokenizer_free(kvb_tokenizer* tokenizer); /* null is ignored */

/* Without what a post-processor would add (BOS, EOS). */
bool kvb_tokenizer_encode(const kvb_tokenizer* tokenizer, kvb_str text, bool parse_special,
                          kvb_ids* ids, kvb_string* error);

/* Of text that goes on after other text: as kvb_tokenizer_encode without parse_special, but no
 * space is put before it. */
bool kvb_tokenizer_encode_continuation(const kvb_tokenizer* tokenizer, kvb_str text, kvb_ids* ids,
                                       kvb_string* error);

typedef struct {
  kvb_str text;
  bool literal;
} kvb_piece;

/* As kvb_tokenizer_encode of the joined pieces with parse_special, but a control token counts only
 * where one piece that is not literal holds it whole. */
bool kvb_tokenizer_encode_pieces(const kvb_tokenizer* tokenizer, const kvb_piece* pieces,
                                 size_t piece_count, kvb_ids* ids, kvb_string* error);

/* -1 when there is no such token, too. */
int64_t kvb_tokenizer_token_to_id(const kvb_tokenizer* tokenizer, kvb_str token, kvb_string* error);

/* Calls `visitor` for every token, in no order. It must not throw. Ids are at most 2^22. */
typedef void (*kvb_token_visitor)(void* context, uint32_t id, kvb_str text, bool special);
bool kvb_tokenizer_visit_tokens(const kvb_tokenizer* tokenizer, kvb_token_visitor visitor,
                                void* context, kvb_string* error);

/* The decoder of the tokenizer.json, as JSON; "null" when it has none. */
bool kvb_tokenizer_decoder_json(const kvb_tokenizer* tokenizer, kvb_string* json,
                                kvb_string* error);

/* The ids that the post-processor of a tokenizer.json puts before a text (BOS), perhaps none. */
bool kvb_tokenizer_prompt_prefix(const kvb_tokenizer* tokenizer, kvb_ids* ids, kvb_string* error);

/* ---- Chat templates ---- */

typedef struct kvb_template kvb_template;

/* `fuel` bounds the work of one rendering: about one unit an instruction or 64 bytes of data. */
kvb_template* kvb_template_new(kvb_str source, uint64_t fuel, kvb_string* error);
void kvb_template_free(kvb_template* tmpl); /* null is ignored */

/* Local time, for a template's strftime_now(). */
typedef struct {
  int32_t year;
  int32_t month; /* 1 to 12 */
  int32_t day;
  int32_t hour;
  int32_t minute;
  int32_t second;
  int32_t weekday;  /* 0 is Sunday */
  int32_t year_day; /* 1 to 366 */
} kvb_local_time;

/* `context_json` is an object: the template's variables. */
bool kvb_template_render(const kvb_template* tmpl, kvb_str context_json, kvb_local_time now,
                         kvb_string* text, kvb_string* error);

/* ---- Grammars ---- */

typedef struct kvb_grammar_compiler kvb_grammar_compiler;
typedef struct kvb_matcher kvb_matcher;

typedef struct {
  kvb_str bytes; /* what the token stands for, a special one's name; empty: it is never allowed */
  bool special;  /* matched by its name in a Lark grammar only, never as text */
} kvb_token;

/* Calls `push` with the ids of `text`, which goes on after other text; not at all where there are
 * none. Thread-safe, must not throw. */
typedef void (*kvb_push_ids)(void* to, const uint32_t* ids, size_t count);
typedef struct {
  const void* context;
  void (*encode)(const void* context, kvb_str text, void* to, kvb_push_ids push);
} kvb_encoder; /* its context outlives all that is made with it */

/* A token's place in `tokens` is its id. At least one end token is needed; end tokens are never a
 * part of a grammar. */
kvb_grammar_compiler* kvb_grammar_compiler_new(const kvb_token* tokens, size_t token_count,
                                               const uint32_t* eos_ids, size_t eos_count,
                                               kvb_encoder encoder, kvb_string* error);
void kvb_grammar_compiler_free(kvb_grammar_compiler* compiler); /* null is ignored */

enum { KVB_JSON_SCHEMA = 0, KVB_REGEX = 1, KVB_LARK = 2 };

/* How much stack a compilation may need. */
#define KVB_COMPILE_STACK_BYTES ((size_t)256 << 20)

/* A matcher at the beginning. The time that it takes is not bounded. */
kvb_matcher* kvb_grammar_compile(const kvb_grammar_compiler* compiler, int32_t kind, kvb_str text,
                                 kvb_string* error);

/* May outlive the compiler. A matcher whose call failed fails for good. */
kvb_matcher* kvb_matcher_clone(const kvb_matcher* matcher, kvb_string* error);
void kvb_matcher_free(kvb_matcher* matcher); /* null is ignored */

/* The tokens that must come next, perhaps none. */
bool kvb_matcher_forced(kvb_matcher* matcher, kvb_ids* ids, kvb_string* error);

/* One bit a token, the lowest bit of words[0] being token 0. */
bool kvb_matcher_fill_mask(kvb_matcher* matcher, uint32_t* words, size_t word_count,
                           kvb_string* error);

bool kvb_matcher_consume(kvb_matcher* matcher, uint32_t id, kvb_string* error);
bool kvb_matcher_rollback(kvb_matcher* matcher, size_t tokens, kvb_string* error);
bool kvb_matcher_ended(const kvb_matcher* matcher); /* nothing but an end token may come */

#ifdef __cplusplus
}
#endif

#endif /* KVASIR_BRIDGE_H_ */
