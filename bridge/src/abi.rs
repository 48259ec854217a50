//! The ABI edge. Every function runs its body under `catch_unwind` and reports a failure, a panic
//! too, through its last argument.
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Once;

use crate::grammar::{GrammarCompiler, GrammarMatcher, Kind, Token};
use crate::template::{LocalTime, Template};
use crate::tokenizer::{Piece, Tokenizer};

/// A borrowed string.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Str {
    data: *const u8,
    len: usize,
}

/// A string that the caller frees with `kvb_string_free`.
#[repr(C)]
pub struct OwnedString {
    data: *mut u8,
    len: usize,
}

/// Token ids that the caller frees with `kvb_ids_free`.
#[repr(C)]
pub struct OwnedIds {
    data: *mut u32,
    len: usize,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct AbiPiece {
    text: Str,
    literal: bool,
}

type TokenVisitor =
    extern "C" fn(context: *mut std::ffi::c_void, id: u32, text: Str, special: bool);

#[repr(C)]
#[derive(Clone, Copy)]
pub struct AbiToken {
    bytes: Str,
    special: bool,
}

type PushIds = extern "C" fn(to: *mut std::ffi::c_void, ids: *const u32, count: usize);

/// The C++ side's tokenizer. It is thread-safe and outlives what is made with it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Encoder {
    context: *const std::ffi::c_void,
    encode: extern "C" fn(
        context: *const std::ffi::c_void,
        text: Str,
        to: *mut std::ffi::c_void,
        push: PushIds,
    ),
}

unsafe impl Send for Encoder {}
unsafe impl Sync for Encoder {}

impl Encoder {
    fn ids_of(&self, text: &str) -> Vec<u32> {
        extern "C" fn push(to: *mut std::ffi::c_void, ids: *const u32, count: usize) {
            // `to` is the vector below, and the caller's ids are valid for the call.
            unsafe { (*to.cast::<Vec<u32>>()).extend_from_slice(slice(ids, count)) }
        }
        let mut ids: Vec<u32> = Vec::new();
        (self.encode)(self.context, Str::borrow(text), (&raw mut ids).cast(), push);
        ids
    }
}

impl Str {
    fn borrow(text: &str) -> Str {
        Str { data: text.as_ptr(), len: text.len() }
    }

    /// # Safety
    /// `data` is readable for `len` bytes while the result lives.
    unsafe fn bytes<'a>(self) -> &'a [u8] {
        if self.len == 0 {
            return &[];
        }
        std::slice::from_raw_parts(self.data, self.len)
    }

    /// # Safety
    /// As for `bytes`.
    unsafe fn text<'a>(self, what: &str) -> Result<&'a str, String> {
        std::str::from_utf8(self.bytes())
            .map_err(|e| format!("{what}: not valid UTF-8 at byte {}", e.valid_up_to()))
    }
}

/// # Safety
/// `data` is readable for `len` items while the result lives, or `len` is 0.
unsafe fn slice<'a, T>(data: *const T, len: usize) -> &'a [T] {
    if len == 0 {
        return &[];
    }
    std::slice::from_raw_parts(data, len)
}

impl From<String> for OwnedString {
    fn from(text: String) -> OwnedString {
        let boxed = text.into_bytes().into_boxed_slice();
        let len = boxed.len();
        OwnedString { data: Box::into_raw(boxed).cast(), len }
    }
}

/// Panics become error values here, so the default hook's message on stderr would only confuse.
fn silence_panic_messages() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| std::panic::set_hook(Box::new(|_| {})));
}

fn panic_message(payload: Box<dyn std::any::Any + Send>) -> String {
    let text = payload
        .downcast_ref::<&str>()
        .map(|s| s.to_string())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_default();
    format!("internal error: {text}")
}

/// # Safety
/// `error` is null or writable.
unsafe fn guard<T>(
    error: *mut OwnedString,
    on_error: T,
    body: impl FnOnce() -> Result<T, String>,
) -> T {
    silence_panic_messages();
    let outcome = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|p| Err(panic_message(p)));
    match outcome {
        Ok(value) => value,
        Err(message) => {
            if !error.is_null() {
                error.write(message.into());
            }
            on_error
        }
    }
}

/// Drops what the handle owns; there is nobody to tell of a panic.
///
/// # Safety
/// `handle` is null, or came from `Box::into_raw` and was not freed.
unsafe fn free<T>(handle: *mut T) {
    if !handle.is_null() {
        let owned = Box::from_raw(handle);
        guard(std::ptr::null_mut(), (), || {
            drop(owned);
            Ok(())
        });
    }
}

/// # Safety
/// As the header states, for this and every function below: pointers are valid for the call,
/// handles come from the matching constructor and were not freed.
#[no_mangle]
pub unsafe extern "C" fn kvb_string_free(text: OwnedString) {
    if !text.data.is_null() {
        drop(Box::from_raw(std::ptr::slice_from_raw_parts_mut(text.data, text.len)));
    }
}

#[no_mangle]
pub unsafe extern "C" fn kvb_ids_free(ids: OwnedIds) {
    if !ids.data.is_null() {
        drop(Box::from_raw(std::ptr::slice_from_raw_parts_mut(ids.data, ids.len)));
    }
}

#[no_mangle]
pub unsafe extern "C" fn kvb_tokenizer_from_json(
    json: Str,
    error: *mut OwnedString,
) -> *mut Tokenizer {
    guard(error, std::ptr::null_mut(), || {
        Ok(Box::into_raw(Box::new(Tokenizer::from_json(json.bytes())?)))
    })
}

#[no_mangle]
pub unsafe extern "C" fn kvb_tokenizer_from_bpe(
    spec_json: Str,
    tokens: *const Str,
    token_count: usize,
    merges: *const Str,
    merge_count: usize,
    error: *mut OwnedString,
) -> *mut Tokenizer {
    guard(error, std::ptr::null_mut(), || {
        let spec = spec_json.text("spec")?;
        let tokens = slice(tokens, token_count)
            .iter()
            .map(|t| t.text("tokens"))
            .collect::<Result<Vec<_>, _>>()?;
        let merges = slice(merges, merge_count * 2)
            .chunks_exact(2)
            .map(|pair| Ok((pair[0].text("merges")?, pair[1].text("merges")?)))
            .collect::<Result<Vec<_>, String>>()?;
        Ok(Box::into_raw(Box::new(Tokenizer::from_bpe(spec, &tokens, &merges)?)))
    })
}

#[no_mangle]
pub unsafe extern "C" fn kvb_tokenizer_free(tokenizer: *mut Tokenizer) {
    free(tokenizer);
}

unsafe fn write_ids(ids: *mut OwnedIds, values: Vec<u32>) {
    let boxed = values.into_boxed_slice();
    let len = boxed.len();
    ids.write(OwnedIds { data: Box::into_raw(boxed).cast(), len });
}

#[no_mangle]
pub unsafe extern "C" fn kvb_tokenizer_encode(
    tokenizer: *const Tokenizer,
    text: Str,
    parse_special: bool,
    ids: *mut OwnedIds,
    error: *mut OwnedString,
) -> bool {
    guard(error, false, || {
        write_ids(ids, (*tokenizer).encode(text.text("text")?, parse_special)?);
        Ok(true)
    })
}

#[no_mangle]
pub unsafe extern "C" fn kvb_tokenizer_encode_continuation(
    tokenizer: *const Tokenizer,
    text: Str,
    ids: *mut OwnedIds,
    error: *mut OwnedString,
) -> bool {
    guard(error, false, || {
        write_ids(ids, (*tokenizer).encode_continuation(text.text("text")?)?);
        Ok(true)
    })
}

#[no_mangle]
pub unsafe extern "C" fn kvb_tokenizer_encode_pieces(
    tokenizer: *const Tokenizer,
    pieces: *const AbiPiece,
    piece_count: usize,
    ids: *mut OwnedIds,
    error: *mut OwnedString,
) -> bool {
    guard(error, false, || {
        let pieces = slice(pieces, piece_count)
            .iter()
            .map(|p| Ok(Piece { text: p.text.text("text")?, literal: p.literal }))
            .collect::<Result<Vec<_>, String>>()?;
        write_ids(ids, (*tokenizer).encode_pieces(&pieces)?);
        Ok(true)
    })
}

#[no_mangle]
pub unsafe extern "C" fn kvb_tokenizer_token_to_id(
    tokenizer: *const Tokenizer,
    token: Str,
    error: *mut OwnedString,
) -> i64 {
    guard(error, -1, || Ok((*tokenizer).token_to_id(token.text("token")?).map_or(-1, i64::from)))
}

#[no_mangle]
pub unsafe extern "C" fn kvb_tokenizer_visit_tokens(
    tokenizer: *const Tokenizer,
    visitor: TokenVisitor,
    context: *mut std::ffi::c_void,
    error: *mut OwnedString,
) -> bool {
    guard(error, false, || {
        (*tokenizer).for_each_token(|id, text, special| {
            visitor(context, id, Str::borrow(text), special);
        });
        Ok(true)
    })
}

#[no_mangle]
pub unsafe extern "C" fn kvb_tokenizer_decoder_json(
    tokenizer: *const Tokenizer,
    json: *mut OwnedString,
    error: *mut OwnedString,
) -> bool {
    guard(error, false, || {
        json.write((*tokenizer).decoder_json()?.into());
        Ok(true)
    })
}

#[no_mangle]
pub unsafe extern "C" fn kvb_tokenizer_prompt_prefix(
    tokenizer: *const Tokenizer,
    ids: *mut OwnedIds,
    error: *mut OwnedString,
) -> bool {
    guard(error, false, || {
        write_ids(ids, (*tokenizer).prompt_prefix().to_vec());
        Ok(true)
    })
}

#[no_mangle]
pub unsafe extern "C" fn kvb_template_new(
    source: Str,
    fuel: u64,
    error: *mut OwnedString,
) -> *mut Template {
    guard(error, std::ptr::null_mut(), || {
        Ok(Box::into_raw(Box::new(Template::new(source.text("template")?, fuel)?)))
    })
}

#[no_mangle]
pub unsafe extern "C" fn kvb_template_free(template: *mut Template) {
    free(template);
}

#[no_mangle]
pub unsafe extern "C" fn kvb_template_render(
    template: *const Template,
    context_json: Str,
    now: LocalTime,
    text: *mut OwnedString,
    error: *mut OwnedString,
) -> bool {
    guard(error, false, || {
        text.write((*template).render(context_json.text("context")?, now)?.into());
        Ok(true)
    })
}

#[no_mangle]
pub unsafe extern "C" fn kvb_grammar_compiler_new(
    tokens: *const AbiToken,
    token_count: usize,
    eos_ids: *const u32,
    eos_count: usize,
    encoder: Encoder,
    error: *mut OwnedString,
) -> *mut GrammarCompiler {
    guard(error, std::ptr::null_mut(), || {
        let tokens: Vec<Token> = slice(tokens, token_count)
            .iter()
            .map(|t| Token { bytes: t.bytes.bytes(), special: t.special })
            .collect();
        let encode = Box::new(move |text: &str| encoder.ids_of(text));
        let compiler = GrammarCompiler::new(&tokens, slice(eos_ids, eos_count), encode)?;
        Ok(Box::into_raw(Box::new(compiler)))
    })
}

#[no_mangle]
pub unsafe extern "C" fn kvb_grammar_compiler_free(compiler: *mut GrammarCompiler) {
    free(compiler);
}

#[no_mangle]
pub unsafe extern "C" fn kvb_grammar_compile(
    compiler: *const GrammarCompiler,
    kind: i32,
    text: Str,
    error: *mut OwnedString,
) -> *mut GrammarMatcher {
    guard(error, std::ptr::null_mut(), || {
        let kind = match kind {
            0 => Kind::JsonSchema,
            1 => Kind::Regex,
            2 => Kind::Lark,
            _ => return Err(format!("{kind} is no kind of constraint")),
        };
        let matcher = (*compiler).compile(kind, text.text("constraint")?)?;
        Ok(Box::into_raw(Box::new(matcher)))
    })
}

#[no_mangle]
pub unsafe extern "C" fn kvb_matcher_clone(
    matcher: *const GrammarMatcher,
    error: *mut OwnedString,
) -> *mut GrammarMatcher {
    guard(error, std::ptr::null_mut(), || Ok(Box::into_raw(Box::new((*matcher).deep_clone()))))
}

#[no_mangle]
pub unsafe extern "C" fn kvb_matcher_free(matcher: *mut GrammarMatcher) {
    free(matcher);
}

#[no_mangle]
pub unsafe extern "C" fn kvb_matcher_forced(
    matcher: *mut GrammarMatcher,
    ids: *mut OwnedIds,
    error: *mut OwnedString,
) -> bool {
    guard(error, false, || {
        write_ids(ids, (*matcher).forced()?);
        Ok(true)
    })
}

#[no_mangle]
pub unsafe extern "C" fn kvb_matcher_fill_mask(
    matcher: *mut GrammarMatcher,
    words: *mut u32,
    word_count: usize,
    error: *mut OwnedString,
) -> bool {
    guard(error, false, || {
        let mask = (*matcher).mask()?;
        let from = mask.as_slice();
        if word_count > from.len() {
            return Err("the mask is longer than the vocabulary".to_string());
        }
        std::ptr::copy_nonoverlapping(from.as_ptr(), words, word_count);
        Ok(true)
    })
}

#[no_mangle]
pub unsafe extern "C" fn kvb_matcher_consume(
    matcher: *mut GrammarMatcher,
    id: u32,
    error: *mut OwnedString,
) -> bool {
    guard(error, false, || (*matcher).consume(id).map(|()| true))
}

#[no_mangle]
pub unsafe extern "C" fn kvb_matcher_rollback(
    matcher: *mut GrammarMatcher,
    tokens: usize,
    error: *mut OwnedString,
) -> bool {
    guard(error, false, || (*matcher).rollback(tokens).map(|()| true))
}

#[no_mangle]
pub unsafe extern "C" fn kvb_matcher_ended(matcher: *const GrammarMatcher) -> bool {
    guard(std::ptr::null_mut(), true, || Ok((*matcher).ended()))
}
