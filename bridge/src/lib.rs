//! The Rust side of Kvasir: Hugging Face tokenizers and Jinja chat templates behind the C ABI that
//! `kvasir_bridge.h` describes. Only `abi` touches raw pointers; the rest is safe Rust.
#![deny(unsafe_code)]

#[allow(unsafe_code)]
mod abi;
mod python;
mod template;
mod tokenizer;
