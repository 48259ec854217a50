//! The Rust side of Kvasir: Hugging Face tokenizers, Jinja chat templates and llguidance's grammars
//! behind the C ABI that `kvasir_bridge.h` describes. Only `abi` touches raw pointers; the rest is
//! safe Rust.
#![deny(unsafe_code)]

#[allow(unsafe_code)]
mod abi;
mod grammar;
mod json_document;
mod json_formats;
mod json_keywords;
mod json_proofs;
mod json_schema;
mod lark_schemas;
mod python;
mod template;
mod tokenizer;
