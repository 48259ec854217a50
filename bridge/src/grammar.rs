//! Constraints on a model's output, over llguidance: which tokens may come next.
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use llguidance::api::{ParserLimits, StopReason, TopLevelGrammar};
use llguidance::toktrie::{
    InferenceCapabilities, SimpleVob, TokEnv, TokRxInfo, TokTrie, TokenizerEnv,
};
use llguidance::{GrammarBuilder, JsonCompileOptions, Matcher, ParserFactory, TokenParser};
use serde_json::{json, Value as Json};

use crate::json_schema::{inner_schemas, prepare};
use crate::lark_schemas::replace_schemas;

/// Constraints come from strangers. A step takes some 10 ms at most, except where it tokenizes a
/// long text that is forced; a matcher holds some 20 MB of lexer states.
const LIMITS: ParserLimits = ParserLimits {
    max_items_in_row: 2000,
    initial_lexer_fuel: 1_000_000,
    step_lexer_fuel: 150_000,
    step_max_items: 20_000,
    max_lexer_states: 20_000,
    max_grammar_size: 200_000,
    precompute_large_lexemes: true,
    verbose_errors: false,
};

/// Recursive descent over a constraint nests no deeper than it has opening brackets and rules. The
/// caller's stack is made for as many.
const MAX_NESTING_MARKS: usize = 10_000;

/// toktrie's nodes count their depth in 10 bits.
const MAX_TOKEN_BYTES: usize = 1024;

/// For how long parts of a schema are tried alone to find the place of an error.
const MAX_TIME_FOR_AN_ERROR: Duration = Duration::from_secs(1);

/// Messages quote the constraint.
const MAX_MESSAGE_CHARS: usize = 1000;

/// What a vocabulary has to say about a token.
pub struct Token<'a> {
    /// Empty where no text makes the token.
    pub bytes: &'a [u8],
    pub special: bool,
}

/// Tokenizes text that goes on after other text, always to the same tokens.
pub type Encode = Box<dyn Fn(&str) -> Vec<u32> + Send + Sync>;

pub struct GrammarCompiler {
    factory: ParserFactory,
    vocabulary: Arc<Vocabulary>,
}

pub enum Kind {
    JsonSchema,
    Regex,
    Lark,
}

/// Where an output stands in a grammar.
pub struct GrammarMatcher {
    matcher: Matcher,
    vocabulary: Arc<Vocabulary>,
    end_tokens: usize, // consumed ones, all at the end
}

// Handles go from thread to thread on the C++ side, and compilers are shared.
const fn assert_send<T: Send>() {}
const fn assert_sync<T: Sync>() {}
const _: () = assert_send::<GrammarMatcher>();
const _: () = assert_sync::<GrammarMatcher>();
const _: () = assert_send::<GrammarCompiler>();
const _: () = assert_sync::<GrammarCompiler>();

struct Vocabulary {
    eos_ids: Vec<u32>,
    usable: SimpleVob, // tokens that may come before the end
}

struct Environment {
    trie: TokTrie,
    encode: Encode,
}

impl TokenizerEnv for Environment {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    /// The tokenizer's tokens where they stand for exactly these bytes. They do not where it
    /// normalizes text.
    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<u32> {
        let tokens = self.trie.tokenize_with_greedy_fallback(bytes, |text| (self.encode)(text));
        if self.trie.decode_raw(&tokens) == bytes {
            return tokens;
        }
        self.trie.greedy_tokenize(bytes)
    }
}

impl GrammarCompiler {
    /// `tokens` are all of the model, in order.
    pub fn new(
        tokens: &[Token],
        eos_ids: &[u32],
        encode: Encode,
    ) -> Result<GrammarCompiler, String> {
        let words: Vec<Vec<u8>> = tokens
            .iter()
            .enumerate()
            .map(|(id, t)| word(t, eos_ids.contains(&(id as u32))))
            .collect();
        let usable: Vec<bool> = words.iter().map(|word| !word.is_empty()).collect();
        let first_eos = *eos_ids.first().ok_or("the model has no end token")?;
        if let Some(id) = eos_ids.iter().find(|id| **id as usize >= words.len()) {
            return Err(format!("end token {id} is out of range"));
        }
        let trie = TokTrie::from(&TokRxInfo::new(words.len() as u32, first_eos), &words)
            .with_eos_tokens(eos_ids);
        let environment: TokEnv = Arc::new(Environment { trie, encode });
        let slices = llguidance::earley::SlicedBiasComputer::general_slices();
        let mut factory =
            ParserFactory::new(&environment, InferenceCapabilities::default(), &slices)
                .map_err(message)?;
        factory.quiet();
        *factory.limits_mut() = LIMITS;
        let usable = SimpleVob::from_slice(&usable);
        let vocabulary = Arc::new(Vocabulary { eos_ids: eos_ids.to_vec(), usable });
        Ok(GrammarCompiler { factory, vocabulary })
    }

    /// A matcher at the beginning.
    pub fn compile(&self, kind: Kind, text: &str) -> Result<GrammarMatcher, String> {
        check_nesting(&kind, text)?;
        let grammar = match kind {
            Kind::JsonSchema => return self.compile_schema(&schema(text)?),
            Kind::Regex => TopLevelGrammar::from_regex(text),
            Kind::Lark => TopLevelGrammar::from_lark(replace_schemas(text, with_defaults)?),
        };
        self.start(grammar)
    }

    fn compile_schema(&self, schema: &Json) -> Result<GrammarMatcher, String> {
        self.start(TopLevelGrammar::from_json_schema(schema.clone()))
            .map_err(|error| first_error(schema).unwrap_or_else(|| format!("#: {error}")))
    }

    fn start(&self, grammar: TopLevelGrammar) -> Result<GrammarMatcher, String> {
        let mut parser = self.factory.create_parser(grammar).map_err(message)?;
        if !parser.parser.grammar().lexer_spec().can_rollback() {
            return Err("stop= and max_tokens= are not supported".to_string());
        }
        check_beginning(&mut parser)?;
        let vocabulary = self.vocabulary.clone();
        let mut matcher =
            GrammarMatcher { matcher: Matcher::new(Ok(parser)), vocabulary, end_tokens: 0 };
        matcher.mask()?;
        Ok(matcher)
    }
}

impl GrammarMatcher {
    pub fn deep_clone(&self) -> GrammarMatcher {
        GrammarMatcher {
            matcher: self.matcher.deep_clone(),
            vocabulary: self.vocabulary.clone(),
            end_tokens: self.end_tokens,
        }
    }

    /// Nothing but an end token may come.
    pub fn ended(&self) -> bool {
        self.end_tokens > 0 || self.matcher.is_stopped()
    }

    pub fn forced(&mut self) -> Result<Vec<u32>, String> {
        self.check()?;
        if self.ended() {
            return Ok(Vec::new());
        }
        let tokens = self.matcher.compute_ff_tokens();
        self.check()?;
        if tokens.iter().any(|id| !self.vocabulary.usable.is_allowed(*id)) {
            return Err("the constraint asks for a token that no text makes".to_string());
        }
        Ok(tokens)
    }

    pub fn mask(&mut self) -> Result<SimpleVob, String> {
        self.check()?;
        let mut mask = if self.ended() {
            SimpleVob::alloc(self.vocabulary.usable.len())
        } else {
            let mut mask = self.matcher.compute_mask().map_err(message)?;
            mask.and(&self.vocabulary.usable);
            mask
        };
        if self.may_end()? {
            self.vocabulary.eos_ids.iter().for_each(|id| mask.allow_token(*id));
        }
        if mask.is_zero() {
            return Err("no token of the vocabulary may come".to_string());
        }
        Ok(mask)
    }

    pub fn consume(&mut self, id: u32) -> Result<(), String> {
        self.check()?;
        if self.vocabulary.eos_ids.contains(&id) {
            if !self.may_end()? {
                return Err("the output may not end here".to_string());
            }
            self.end_tokens += 1;
            return Ok(());
        }
        if self.ended() {
            return Err("only an end token may come".to_string());
        }
        if id as usize >= self.vocabulary.usable.len() || !self.vocabulary.usable.is_allowed(id) {
            return Err(format!("token {id} may not come"));
        }
        self.matcher.consume_token(id).map_err(message)
    }

    pub fn rollback(&mut self, tokens: usize) -> Result<(), String> {
        self.check()?;
        let end_tokens = tokens.min(self.end_tokens);
        self.end_tokens -= end_tokens;
        self.matcher.rollback(tokens - end_tokens).map_err(message)
    }

    fn may_end(&mut self) -> Result<bool, String> {
        Ok(self.ended() || self.matcher.is_accepting().map_err(message)?)
    }

    fn check(&self) -> Result<(), String> {
        self.matcher.get_error().map_or(Ok(()), |e| Err(message(e)))
    }
}

/// A token in toktrie's way, where the marker keeps special tokens apart from text.
fn word(token: &Token, is_eos: bool) -> Vec<u8> {
    const MARKER: u8 = TokTrie::SPECIAL_TOKEN_MARKER;
    let bytes = token.bytes;
    let passes_for_special = bytes.len() > 1 && bytes[0] == MARKER;
    if is_eos || bytes.is_empty() || bytes.len() >= MAX_TOKEN_BYTES || passes_for_special {
        return Vec::new();
    }
    if token.special {
        return [&[MARKER], bytes].concat();
    }
    bytes.to_vec()
}

/// Whether some output can begin, and without too much work. Where all of an output is forced, it
/// must come to an end.
fn check_beginning(parser: &mut TokenParser) -> Result<(), String> {
    parser.start_without_prompt();
    if parser.check_stop().map_err(message)? {
        return Ok(());
    }
    let mask = parser.compute_mask();
    if parser.stop_reason() == StopReason::NoExtensionBias {
        return Err("allows no output".to_string());
    }
    mask.map_err(message)?;
    parser.parser.get_error().map_or(Ok(()), |e| Err(message(e.message())))
}

fn check_nesting(kind: &Kind, text: &str) -> Result<(), String> {
    let is_mark = |byte: &u8| match byte {
        b'(' | b'[' | b'{' => true,
        b':' | b'~' => matches!(kind, Kind::Lark),
        _ => false,
    };
    let marks = text.as_bytes().iter().filter(|byte| is_mark(byte)).count();
    if marks > MAX_NESTING_MARKS {
        return Err(format!("has more than {MAX_NESTING_MARKS} brackets and rules"));
    }
    Ok(())
}

/// The innermost schema that does not compile alone, and why; nothing where all do.
fn first_error(root: &Json) -> Option<String> {
    let definitions = root.get("$defs").cloned().unwrap_or_default();
    let begin = Instant::now();
    let error_of = |schema: &Json| {
        if begin.elapsed() > MAX_TIME_FOR_AN_ERROR {
            return None;
        }
        let mut alone = schema.clone();
        for key in ["$schema", "$defs", "x-guidance"] {
            alone[key] = root.get(key).cloned().unwrap_or_default();
        }
        let builder = GrammarBuilder::new(None, LIMITS);
        let result = JsonCompileOptions::default().json_to_llg_with_overrides(builder, alone);
        result.err().map(message)
    };
    let mut error = error_of(root)?;
    let mut place = root;
    let mut seen = HashSet::new();
    while let Some((inner, its_error)) = inner_schemas(place, &definitions)
        .into_iter()
        .filter(|inner| seen.insert(std::ptr::from_ref(*inner)))
        .find_map(|inner| Some((inner, error_of(inner)?)))
    {
        (place, error) = (inner, its_error);
    }
    let name = place.get("$comment").and_then(Json::as_str).unwrap_or("#");
    Some(format!("{name}: {error}"))
}

fn schema(text: &str) -> Result<Json, String> {
    let schema: Json = serde_json::from_str(text).map_err(|e| format!("not JSON: {e}"))?;
    if schema == Json::Bool(true) {
        return with_defaults(&json!({}));
    }
    with_defaults(&schema)
}

/// The schema as llguidance takes it, with this server's defaults for what JSON Schema leaves open.
/// Its own x-guidance goes before them, except that nothing may be ignored.
fn with_defaults(schema: &Json) -> Result<Json, String> {
    let mut options = json!({
        "whitespace_flexible": false,
        "item_separator": ", ",
        "key_separator": ": ",
    });
    if !has_control_characters(schema) {
        // Every string has one spelling, so that no name of a property can be written as another.
        options["json_allowed_escapes"] = "nrbtf\\\"".into();
    }
    if let Some(own) = schema.get("x-guidance") {
        llguidance::json_merge(&mut options, own);
    }
    if let Some(options) = options.as_object_mut() {
        options.insert("lenient".to_string(), false.into());
    }
    let checked: JsonCompileOptions = serde_json::from_value(options.clone())
        .map_err(|error| format!("#/x-guidance: {error}"))?;
    let mut prepared = prepare(schema, checked.coerce_one_of)?;
    prepared["x-guidance"] = options;
    Ok(prepared)
}

/// Whether there are control characters in it that JSON writes as numbers only.
fn has_control_characters(value: &Json) -> bool {
    let is_numbered = |c: char| c.is_control() && !"\u{8}\t\n\u{c}\r".contains(c);
    match value {
        Json::String(text) => text.contains(is_numbered),
        Json::Array(items) => items.iter().any(has_control_characters),
        Json::Object(map) => map
            .iter()
            .any(|(key, inner)| key.contains(is_numbered) || has_control_characters(inner)),
        _ => false,
    }
}

/// What went wrong, without the state and the stack that llguidance may add.
fn message(error: impl std::fmt::Display) -> String {
    let text = error.to_string();
    let end = ["\n<state>", "\n<non-verbose/>", "\n<backtrace>"]
        .iter()
        .filter_map(|mark| text.find(mark))
        .min()
        .unwrap_or(text.len());
    let short: String = text[..end].chars().take(MAX_MESSAGE_CHARS).collect();
    short.trim_end().to_string()
}
