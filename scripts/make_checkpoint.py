#!/usr/bin/env python3
"""Writes a small llama or qwen2 checkpoint with random weights as a Hugging Face folder.

The same arguments give the same bytes. There is no tokenizer: the folder is for tests of loading
and of the forward pass.
"""

import argparse
import json
import pathlib
import struct

import numpy as np


def tensors(args, rng):
    """Yields name and float32 array of every weight."""
    head_dim = args.hidden // args.heads
    kv_width = args.kv_heads * head_dim

    def matrix(rows, cols):
        # Keeps the variance of what the matrix is applied to.
        return (rng.standard_normal((rows, cols)) / np.sqrt(cols)).astype(np.float32)

    def norm():
        return (1.0 + 0.1 * rng.standard_normal(args.hidden)).astype(np.float32)

    yield "model.embed_tokens.weight", matrix(args.vocab, args.hidden)
    for layer in range(args.layers):
        prefix = f"model.layers.{layer}."
        yield prefix + "input_layernorm.weight", norm()
        for name, rows in [("q", args.hidden), ("k", kv_width), ("v", kv_width)]:
            yield f"{prefix}self_attn.{name}_proj.weight", matrix(rows, args.hidden)
            if args.architecture == "qwen2":
                bias = 0.1 * rng.standard_normal(rows)
                yield f"{prefix}self_attn.{name}_proj.bias", bias.astype(np.float32)
        yield prefix + "self_attn.o_proj.weight", matrix(args.hidden, args.hidden)
        yield prefix + "post_attention_layernorm.weight", norm()
        yield prefix + "mlp.gate_proj.weight", matrix(args.ffn, args.hidden)
        yield prefix + "mlp.up_proj.weight", matrix(args.ffn, args.hidden)
        yield prefix + "mlp.down_proj.weight", matrix(args.hidden, args.ffn)
    yield "model.norm.weight", norm()
    if not args.tied:
        yield "lm_head.weight", matrix(args.vocab, args.hidden)


def encode(array, dtype):
    if dtype == "F32":
        return array.astype("<f4").tobytes()
    if dtype == "F16":
        return array.astype("<f2").tobytes()
    # Round to nearest, ties to even, on the upper half of the float.
    bits = array.astype("<f4").view("<u4")
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()


def write_safetensors(path, named, dtype):
    header, offset, blobs = {}, 0, []
    for name, array in named:
        blob = encode(array, dtype)
        header[name] = {
            "dtype": dtype,
            "shape": list(array.shape),
            "data_offsets": [offset, offset + len(blob)],
        }
        offset += len(blob)
        blobs.append(blob)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for blob in blobs:
            out.write(blob)


def config(args):
    names = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM"}
    return {
        "architectures": [names[args.architecture]],
        "model_type": args.architecture,
        "num_hidden_layers": args.layers,
        "hidden_size": args.hidden,
        "num_attention_heads": args.heads,
        "num_key_value_heads": args.kv_heads,
        "intermediate_size": args.ffn,
        "vocab_size": args.vocab,
        "max_position_embeddings": args.context,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": args.tied,
        "eos_token_id": 0,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--architecture", choices=["llama", "qwen2"], default="llama")
    parser.add_argument("--dtype", choices=["F32", "F16", "BF16"], default="F32")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--kv-heads", type=int, default=2)
    parser.add_argument("--ffn", type=int, default=96)
    parser.add_argument("--vocab", type=int, default=256)
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--tied", action="store_true", help="no output matrix of its own")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if args.hidden % args.heads or args.heads % args.kv_heads:
        parser.error("the hidden size is a multiple of the heads, they of the KV heads")
    args.folder.mkdir(parents=True, exist_ok=True)
    (args.folder / "config.json").write_text(json.dumps(config(args), indent=2) + "\n")
    named = tensors(args, np.random.default_rng(args.seed))
    write_safetensors(args.folder / "model.safetensors", named, args.dtype)


if __name__ == "__main__":
    main()
