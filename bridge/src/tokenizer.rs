//! A Hugging Face tokenizer in several readings that share one model: whether the text of control
//! tokens becomes their ids or is ordinary, and whether a text begins here or goes on.
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{json, Value as Json};
use tokenizers::decoders::DecoderWrapper;
use tokenizers::models::bpe::{Vocab, BPE};
use tokenizers::models::{ModelWrapper, TrainerWrapper};
use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::processors::PostProcessorWrapper;
use tokenizers::{
    AddedToken, Model, NormalizedString, Normalizer, OffsetReferential, OffsetType, Token,
    TokenizerImpl,
};

/// A larger id is a broken file: no vocabulary comes near, and tables are indexed by id.
const MAX_TOKEN_ID: u32 = 1 << 22;

#[derive(Clone)]
struct SharedModel(Arc<ModelWrapper>);

impl<'de> Deserialize<'de> for SharedModel {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        ModelWrapper::deserialize(deserializer).map(|model| SharedModel(Arc::new(model)))
    }
}

impl Model for SharedModel {
    type Trainer = TrainerWrapper;

    fn tokenize(&self, sequence: &str) -> tokenizers::Result<Vec<Token>> {
        self.0.tokenize(sequence)
    }
    fn token_to_id(&self, token: &str) -> Option<u32> {
        self.0.token_to_id(token)
    }
    fn id_to_token(&self, id: u32) -> Option<String> {
        self.0.id_to_token(id)
    }
    fn get_vocab(&self) -> HashMap<String, u32> {
        self.0.get_vocab()
    }
    fn get_vocab_size(&self) -> usize {
        self.0.get_vocab_size()
    }
    fn save(&self, folder: &Path, prefix: Option<&str>) -> tokenizers::Result<Vec<PathBuf>> {
        self.0.save(folder, prefix)
    }
    fn get_trainer(&self) -> TrainerWrapper {
        self.0.get_trainer()
    }
}

type Impl = TokenizerImpl<
    SharedModel,
    NormalizerWrapper,
    PreTokenizerWrapper,
    PostProcessorWrapper,
    DecoderWrapper,
>;

/// A BPE tokenizer without its arrays: the parts of a tokenizer.json that a GGUF file implies.
#[derive(Deserialize)]
struct BpeSpec {
    normalizer: Option<NormalizerWrapper>,
    pre_tokenizer: Option<PreTokenizerWrapper>,
    unk_token: Option<String>,
    byte_fallback: bool,
    fuse_unk: bool,
    ignore_merges: bool,
    special_ids: Vec<usize>,
    added_ids: Vec<usize>,
}

#[derive(Deserialize)]
struct DeclaredToken {
    id: u32,
    content: String,
}

#[derive(Deserialize)]
struct DeclaredTokens {
    #[serde(default)]
    added_tokens: Vec<DeclaredToken>,
}

pub struct Piece<'a> {
    pub text: &'a str,
    pub literal: bool,
}

pub struct Tokenizer {
    with_special: Impl,
    plain: Impl,
    /// As `plain`, for text that does not stand at the beginning.
    plain_inside: Impl,
    /// As `plain`, for text that goes on in the middle of a word, perhaps: nothing puts a space
    /// before it.
    continuing: Impl,
    prompt_prefix: Vec<u32>,
}

// Handles are shared between threads on the C++ side.
const fn assert_thread_safe<T: Send + Sync>() {}
const _: () = assert_thread_safe::<Tokenizer>();

fn text_of(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl Tokenizer {
    pub fn from_json(json: &[u8]) -> Result<Tokenizer, String> {
        let mut tokenizer: Impl = serde_json::from_slice(json).map_err(text_of)?;
        tokenizer.with_truncation(None).map_err(text_of)?;
        tokenizer.with_padding(None);
        let declared: DeclaredTokens = serde_json::from_slice(json).map_err(text_of)?;
        check_declared_ids(&tokenizer, &declared)?;
        let prompt_prefix = prefix_that_post_processing_adds(&tokenizer)?;
        Tokenizer::from_impl(tokenizer, prompt_prefix)
    }

    pub fn from_bpe(
        spec_json: &str,
        tokens: &[&str],
        merges: &[(&str, &str)],
    ) -> Result<Tokenizer, String> {
        let spec: BpeSpec =
            serde_json::from_str(spec_json).map_err(|e| format!("tokenizer spec: {e}"))?;
        let added = added_tokens(&spec, tokens)?;
        let mut tokenizer = Impl::new(SharedModel(Arc::new(build_bpe(&spec, tokens, merges)?)));
        tokenizer.with_normalizer(spec.normalizer).map_err(text_of)?;
        tokenizer.with_pre_tokenizer(spec.pre_tokenizer);
        tokenizer.add_tokens(added).map_err(text_of)?;
        Tokenizer::from_impl(tokenizer, Vec::new())
    }

    fn from_impl(mut with_special: Impl, prompt_prefix: Vec<u32>) -> Result<Tokenizer, String> {
        with_special.with_post_processor(None::<PostProcessorWrapper>);
        let mut plain = with_special.clone();
        plain.set_encode_special_tokens(true);
        let mut plain_inside = plain.clone();
        plain_inside.with_pre_tokenizer(pre_tokenizer_inside(&plain)?);
        let mut continuing = plain.clone();
        continuing.with_pre_tokenizer(without_added_space(plain.get_pre_tokenizer())?);
        continuing
            .with_normalizer(without_added_space(plain.get_normalizer())?)
            .map_err(text_of)?;
        let tokenizer = Tokenizer { with_special, plain, plain_inside, continuing, prompt_prefix };
        let mut largest = 0;
        tokenizer.for_each_token(|id, _, _| largest = largest.max(id));
        if largest > MAX_TOKEN_ID {
            return Err(format!("vocabulary: token id {largest} is out of range"));
        }
        Ok(tokenizer)
    }

    pub fn encode(&self, text: &str, parse_special: bool) -> Result<Vec<u32>, String> {
        let reading = if parse_special { &self.with_special } else { &self.plain };
        let encoding = reading.encode_fast(text, false).map_err(text_of)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Control tokens are ordinary text.
    pub fn encode_continuation(&self, text: &str) -> Result<Vec<u32>, String> {
        let encoding = self.continuing.encode_fast(text, false).map_err(text_of)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Control tokens are looked for in the pieces that are not literal; the text between two of
    /// them is tokenized as one.
    pub fn encode_pieces(&self, pieces: &[Piece]) -> Result<Vec<u32>, String> {
        if pieces.iter().all(|piece| !piece.literal) {
            let text: String = pieces.iter().map(|piece| piece.text).collect();
            return self.encode(&text, true);
        }
        let mut ids = Vec::new();
        let mut run = String::new();
        for piece in pieces {
            if piece.literal {
                run.push_str(piece.text);
                continue;
            }
            for (text, special) in self.split_at_control_tokens(piece.text) {
                match special {
                    None => run.push_str(&text),
                    Some(id) => {
                        self.encode_run(&run, &mut ids)?;
                        run.clear();
                        ids.push(id);
                    }
                }
            }
        }
        self.encode_run(&run, &mut ids)?;
        Ok(ids)
    }

    fn encode_run(&self, text: &str, ids: &mut Vec<u32>) -> Result<(), String> {
        let reading = if ids.is_empty() { &self.plain } else { &self.plain_inside };
        let encoding = reading.encode_fast(text, false).map_err(text_of)?;
        ids.extend(encoding.get_ids());
        Ok(())
    }

    fn split_at_control_tokens(&self, text: &str) -> Vec<(String, Option<u32>)> {
        let added = self.with_special.get_added_vocabulary();
        let split = added.extract_and_normalize(None::<&NoNormalizer>, text);
        split
            .get_splits(OffsetReferential::Original, OffsetType::Byte)
            .into_iter()
            .map(|(piece, _, tokens)| {
                let id = tokens.as_ref().and_then(|t| t.first()).map(|t| t.id);
                (piece.to_string(), id.filter(|id| self.is_special(*id)))
            })
            .collect()
    }

    fn is_special(&self, id: u32) -> bool {
        let added = self.with_special.get_added_vocabulary().get_added_tokens_decoder();
        added.get(&id).is_some_and(|token| token.special)
    }

    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.with_special.token_to_id(token)
    }

    /// `visit(id, text, special)`, in no order.
    pub fn for_each_token(&self, mut visit: impl FnMut(u32, &str, bool)) {
        let added = self.with_special.get_added_vocabulary().get_added_tokens_decoder();
        for (text, id) in self.with_special.get_model().get_vocab() {
            if !added.contains_key(&id) {
                visit(id, &text, false);
            }
        }
        for (id, token) in added {
            visit(*id, &token.content, token.special);
        }
    }

    pub fn decoder_json(&self) -> Result<String, String> {
        serde_json::to_string(&self.with_special.get_decoder()).map_err(text_of)
    }

    pub fn prompt_prefix(&self) -> &[u32] {
        &self.prompt_prefix
    }
}

/// Some pre-tokenizers put a space before the first word of a text only.
fn pre_tokenizer_inside(tokenizer: &Impl) -> Result<Option<PreTokenizerWrapper>, String> {
    fn never_prepend(json: &mut Json) {
        match json {
            Json::Object(map) => {
                if map.get("prepend_scheme").is_some_and(|scheme| scheme == "first") {
                    map.insert("prepend_scheme".to_string(), "never".into());
                }
                map.values_mut().for_each(never_prepend);
            }
            Json::Array(items) => items.iter_mut().for_each(never_prepend),
            _ => {}
        }
    }
    let mut json = serde_json::to_value(tokenizer.get_pre_tokenizer()).map_err(text_of)?;
    never_prepend(&mut json);
    serde_json::from_value(json).map_err(text_of)
}

/// A normalizer or pre-tokenizer without what puts a space before a text, the first or any.
fn without_added_space<T: Serialize + DeserializeOwned>(
    part: Option<&T>,
) -> Result<Option<T>, String> {
    fn remove(json: &mut Json) {
        match json {
            Json::Object(map) if map.get("type").is_some_and(|kind| kind == "Prepend") => {
                *json = json!({"type": "Sequence", "normalizers": []});
            }
            Json::Object(map) => {
                for (key, neutral) in
                    [("prepend_scheme", json!("never")), ("add_prefix_space", json!(false))]
                {
                    map.entry(key).and_modify(|value| *value = neutral);
                }
                map.values_mut().for_each(remove);
            }
            Json::Array(items) => items.iter_mut().for_each(remove),
            _ => {}
        }
    }
    let mut json = serde_json::to_value(part).map_err(text_of)?;
    remove(&mut json);
    serde_json::from_value(json).map_err(text_of)
}

struct NoNormalizer;

impl Normalizer for NoNormalizer {
    fn normalize(&self, _: &mut NormalizedString) -> tokenizers::Result<()> {
        Ok(())
    }
}

fn build_bpe(
    spec: &BpeSpec,
    tokens: &[&str],
    merges: &[(&str, &str)],
) -> Result<ModelWrapper, String> {
    let vocab: Vocab =
        tokens.iter().enumerate().map(|(id, text)| (text.to_string(), id as u32)).collect();
    let merges = merges.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect();
    let mut builder = BPE::builder()
        .vocab_and_merges(vocab, merges)
        .byte_fallback(spec.byte_fallback)
        .fuse_unk(spec.fuse_unk)
        .ignore_merges(spec.ignore_merges);
    if let Some(unk) = &spec.unk_token {
        builder = builder.unk_token(unk.clone());
    }
    Ok(builder.build().map_err(|e| format!("merges: {e}"))?.into())
}

fn added_tokens(spec: &BpeSpec, tokens: &[&str]) -> Result<Vec<AddedToken>, String> {
    let lists = [(&spec.special_ids, true), (&spec.added_ids, false)];
    let mut added = Vec::new();
    for (ids, special) in lists {
        for id in ids {
            let text = tokens.get(*id).ok_or_else(|| format!("token id {id} is out of range"))?;
            added.push(AddedToken::from(text.to_string(), special).normalized(false));
        }
    }
    Ok(added)
}

/// The library warns and renumbers where a file's added tokens contradict its model; the weights
/// know only the file's ids.
fn check_declared_ids(tokenizer: &Impl, declared: &DeclaredTokens) -> Result<(), String> {
    for token in &declared.added_tokens {
        let actual = tokenizer.token_to_id(&token.content);
        if actual != Some(token.id) {
            return Err(format!(
                "added_tokens: \"{}\" has id {} but its place in the vocabulary is {}",
                token.content,
                token.id,
                actual.map_or("none".to_string(), |id| id.to_string())
            ));
        }
    }
    Ok(())
}

/// What the post-processor writes before a text: BOS, where the model wants one.
fn prefix_that_post_processing_adds(tokenizer: &Impl) -> Result<Vec<u32>, String> {
    let bare = tokenizer.encode_fast("a", false).map_err(text_of)?;
    let full = tokenizer.encode_fast("a", true).map_err(text_of)?;
    let (bare, full) = (bare.get_ids(), full.get_ids());
    let added = full.len().saturating_sub(bare.len());
    let prefix = (0..=added).find(|start| full[*start..].starts_with(bare)).unwrap_or(0);
    Ok(full[..prefix].to_vec())
}
