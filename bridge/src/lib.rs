//! The Rust side of Kvasir: Hugging Face tokenizers, Jinja chat templates and llguidance's grammars
//! behind the C ABI that `kvasir_bridge.h` describes. Only `abi` touches raw pointers; the rest is
//! safe Rust.
#![deny(unsafe_code)]

#[allow(unsafe_code)]
mod abi;
mod grammar;
mod python;
mod template;
mod tokenizer;
