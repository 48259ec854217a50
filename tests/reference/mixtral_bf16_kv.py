#!/usr/bin/env python3
"""Mixtral in NumPy, float64, with K and V as they are and rounded to BF16.

Needs NumPy. Prints for each prompt of tests/data/golden/tiny/mixtral how far the logits lie from the golden ones,
in their standard deviation: what rounding K and V does to a model with experts, whoever computes it.
cli_test --gtest_filter='*Bf16Kv*/mixtral' prints the largest of what Kvasir gives.
"""

import json
import pathlib
import struct

import numpy as np

FOLDER = pathlib.Path(__file__).parents[1] / "data/golden/tiny/mixtral"


def load():
    raw = (FOLDER / "model.safetensors").read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    tensors = {}
    for name, entry in json.loads(raw[8 : 8 + size]).items():
        if name == "__metadata__":
            continue
        begin, end = (8 + size + offset for offset in entry["data_offsets"])
        bits = np.frombuffer(raw[begin:end], np.uint16).astype(np.uint32) << 16
        tensors[name] = bits.view(np.float32).reshape(entry["shape"]).astype(np.float64)
    return tensors


def to_bf16(x):
    bits = x.astype(np.float32).view(np.uint32)
    rounded = (bits + ((bits >> 16) & 1) + 0x7FFF) & 0xFFFF0000
    return rounded.view(np.float32).astype(np.float64)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


class Mixtral:
    def __init__(self):
        self.config = json.loads((FOLDER / "config.json").read_text())
        self.tensors = load()
        self.heads = self.config["num_attention_heads"]
        self.kv_heads = self.config["num_key_value_heads"]
        self.dim = self.config.get("head_dim") or self.config["hidden_size"] // self.heads

    def norm(self, x, name):
        mean = (x * x).mean(-1, keepdims=True)
        return x / np.sqrt(mean + self.config["rms_norm_eps"]) * self.tensors[name]

    def rotate(self, x):
        theta = self.config["rope_parameters"]["rope_theta"]
        frequencies = theta ** (-np.arange(0, self.dim, 2) / self.dim)
        angles = np.arange(len(x))[:, None] * frequencies
        cosines = np.concatenate([np.cos(angles)] * 2, -1)[:, None]
        sines = np.concatenate([np.sin(angles)] * 2, -1)[:, None]
        half = self.dim // 2
        return x * cosines + np.concatenate([-x[..., half:], x[..., :half]], -1) * sines

    def attention(self, x, prefix, round_kv):
        count = len(x)
        q, k, v = (
            (x @ self.tensors[f"{prefix}self_attn.{name}_proj.weight"].T).reshape(
                count, -1, self.dim
            )
            for name in "qkv"
        )
        q, k = self.rotate(q), self.rotate(k)
        if round_kv:
            k, v = to_bf16(k), to_bf16(v)
        k, v = (np.repeat(kv, self.heads // self.kv_heads, 1) for kv in (k, v))
        scores = np.einsum("ihd,jhd->hij", q, k) / np.sqrt(self.dim)
        scores = np.where(np.tril(np.ones((count, count))) > 0, scores, -np.inf)
        out = np.einsum("hij,jhd->ihd", softmax(scores), v).reshape(count, -1)
        return out @ self.tensors[prefix + "self_attn.o_proj.weight"].T

    def experts(self, x, prefix):
        probabilities = softmax(x @ self.tensors[prefix + "block_sparse_moe.gate.weight"].T)
        out = np.zeros_like(x)
        for row, p in enumerate(probabilities):
            best = np.argsort(-p, kind="stable")[: self.config["num_experts_per_tok"]]
            for expert in best:
                w1, w2, w3 = (self.expert(prefix, expert, name) for name in ("w1", "w2", "w3"))
                gate = w1 @ x[row]
                y = w2 @ (gate / (1 + np.exp(-gate)) * (w3 @ x[row]))
                out[row] += p[expert] / p[best].sum() * y
        return out

    def expert(self, prefix, expert, name):
        return self.tensors[f"{prefix}block_sparse_moe.experts.{expert}.{name}.weight"]

    def last_logits(self, ids, round_kv):
        x = self.tensors["model.embed_tokens.weight"][ids]
        for layer in range(self.config["num_hidden_layers"]):
            prefix = f"model.layers.{layer}."
            h = self.norm(x, prefix + "input_layernorm.weight")
            x = x + self.attention(h, prefix, round_kv)
            x = x + self.experts(self.norm(x, prefix + "post_attention_layernorm.weight"), prefix)
        return self.norm(x, "model.norm.weight")[-1] @ self.tensors["lm_head.weight"].T


def main():
    model = Mixtral()
    for prompt in json.loads((FOLDER / "golden.json").read_text())["prompts"]:
        exact, rounded = (
            max(
                abs(logits[int(token)] - value) / prompt["std"] for token, value in prompt["top16"]
            )
            for logits in (model.last_logits(np.array(prompt["ids"]), on) for on in (False, True))
        )
        print(f"{len(prompt['ids']):4} tokens: exact {exact:.1e} std, K and V in BF16 {rounded:.4f}")


if __name__ == "__main__":
    main()
