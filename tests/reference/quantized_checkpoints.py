#!/usr/bin/env python3
"""Writes tiny checkpoints in every quantised format that is imported, with reference logits.

Needs NumPy. The same weights, rounded and packed as each format has it, become a folder of
tests/data/golden/quantized: a Hugging Face checkpoint or a GGUF file, and golden.json (as in
tests/data/golden/tiny), computed in float64 from the rounded weights, which are expanded here. The
same seed gives the same bytes.
"""

import json
import pathlib
import struct

import numpy as np

DATA = pathlib.Path(__file__).parents[1] / "data/golden"
PROMPTS = (1, 9, 60)  # tokens of each
GREEDY = 24


# ---- Containers ----


def bf16_bits(x):
    bits = x.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bf16(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


def to_bf16(x):
    return from_bf16(bf16_bits(x))


class Bf16:
    """Floats that are stored as BF16."""

    def __init__(self, x):
        self.bits = bf16_bits(x)
        self.values = from_bf16(self.bits)


class F8:
    """Codes of E4M3."""

    def __init__(self, codes):
        self.bits = codes


def stored(tensor):
    if isinstance(tensor, Bf16):
        return "BF16", tensor.bits
    if isinstance(tensor, F8):
        return "F8_E4M3", tensor.bits
    names = {"float32": "F32", "float16": "F16", "int32": "I32", "int64": "I64", "int8": "I8",
             "uint8": "U8"}  # fmt: skip
    return names[tensor.dtype.name], tensor


def write_safetensors(path, tensors):
    header, blobs, offset = {}, [], 0
    for name, tensor in tensors.items():
        dtype, array = stored(tensor)
        blob = np.ascontiguousarray(array).tobytes()
        header[name] = {"dtype": dtype, "shape": list(array.shape),
                        "data_offsets": [offset, offset + len(blob)]}  # fmt: skip
        offset += len(blob)
        blobs.append(blob)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def read_safetensors(path):
    raw = path.read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    out = {}
    for name, entry in json.loads(raw[8 : 8 + size]).items():
        if name == "__metadata__":
            continue
        assert entry["dtype"] == "BF16"
        begin, end = (8 + size + offset for offset in entry["data_offsets"])
        out[name] = from_bf16(np.frombuffer(raw[begin:end], np.uint16)).reshape(entry["shape"])
    return out


def write_gguf(path, metadata, tensors):
    """`tensors`: name -> (type id, shape, bytes)."""

    def text(s):
        return struct.pack("<Q", len(s)) + s.encode()

    def value(v):
        if isinstance(v, str):
            return struct.pack("<I", 8) + text(v)
        return struct.pack("<If", 6, v) if isinstance(v, float) else struct.pack("<II", 4, v)

    out = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))
    out += b"".join(text(key) + value(v) for key, v in metadata.items())
    data = b""
    for name, (kind, shape, content) in tensors.items():
        data += bytes(-len(data) % 32)
        out += text(name) + struct.pack("<I", len(shape))
        out += struct.pack(f"<{len(shape)}Q", *shape[::-1]) + struct.pack("<IQ", kind, len(data))
        data += content
    path.write_bytes(out + bytes(-len(out) % 32) + data)


# ---- Rounding ----


def pack(values, bits, axis):
    """Into 32-bit words along an axis, the first in the lowest bits."""
    values = np.moveaxis(values.astype(np.uint32), axis, -1)
    words = np.zeros(values.shape[:-1] + (values.shape[-1] * bits // 32,), np.uint32)
    for i in range(32 // bits):
        words |= values[..., i :: 32 // bits] << (bits * i)
    return np.moveaxis(words, -1, axis).view(np.int32) if axis in (-1, 1) else (
        np.ascontiguousarray(np.moveaxis(words, -1, axis)).view(np.int32))  # fmt: skip


def round_groups(w, bits, columns, symmetric, keep, order=None):
    """q, scales [rows, groups], zeros [rows, groups] and the weights that they stand for.

    `columns` share a scale, which `keep` rounds to what is stored; `order` says which lie together.
    """
    rows, cols = w.shape
    order = np.arange(cols) if order is None else order
    grouped = w[:, order].reshape(rows, -1, columns)
    most = 2**bits - 1
    if symmetric:
        scale = keep(np.abs(grouped).max(-1) / (most // 2))
        zero = np.full(scale.shape, 2 ** (bits - 1))
    else:
        low, high = np.minimum(grouped.min(-1), 0), np.maximum(grouped.max(-1), 0)
        scale = keep((high - low) / most)
        zero = np.clip(np.rint(-low / scale), 1, most).astype(int)
    q = np.clip(np.rint(grouped / scale[..., None]) + zero[..., None], 0, most).astype(int)
    expanded = scale[..., None].astype(np.float32) * (q - zero[..., None]).astype(np.float32)
    back = np.empty(cols, int)
    back[order] = np.arange(cols)
    flat = (x.reshape(rows, cols)[:, back] for x in (q, expanded))
    q, expanded = flat
    return q, scale, zero, expanded


def f8_values():
    codes = np.arange(127)
    exponent, mantissa = codes >> 3, codes & 7
    return np.where(exponent == 0, mantissa * 2.0**-9, (8 + mantissa) * 2.0 ** (exponent - 10.0))


def nearest(table, x):
    return np.abs(table - x[..., None]).argmin(-1)


def to_f8(x):
    codes = nearest(f8_values(), np.abs(x)).astype(np.uint8)
    return codes | np.where(x < 0, 0x80, 0).astype(np.uint8)


def from_f8(codes):
    return (f8_values()[codes & 0x7F] * np.where(codes & 0x80, -1, 1)).astype(np.float32)


E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])
E2M1 = np.concatenate([E2M1, -E2M1])
IQ4_NL = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113])


def round_mxfp4(w):
    """Codes [..., groups, 32], exponents as bytes [..., groups], and the weights."""
    grouped = w.reshape(w.shape[:-1] + (-1, 32))
    exponent = np.floor(np.log2(np.abs(grouped).max(-1))) - 2
    scale = 2.0 ** exponent[..., None]
    codes = nearest(E2M1, grouped / scale).astype(np.uint8)
    return codes, (exponent + 127).astype(np.uint8), (E2M1[codes] * scale).reshape(w.shape)


# ---- Formats ----
# Each turns the matrix of a name into tensors and returns them with the weights they stand for.


def awq(name, w, rng):
    q, scale, zero, expanded = round_groups(w, 4, 64, False, np.float16)
    places = [0, 2, 4, 6, 1, 3, 5, 7]

    def words(x):  # [in or groups, out]
        return pack(x.reshape(len(x), -1, 8)[:, :, places].reshape(x.shape), 4, 1)

    return {name + ".qweight": words(q.T), name + ".qzeros": words(zero.T),
            name + ".scales": np.ascontiguousarray(scale.T)}, expanded  # fmt: skip


def gptq(bits, columns, symmetric, offset, act_order):
    def make(name, w, rng):
        cols = w.shape[1]
        order = None
        if act_order:
            # The inputs of q, k and v are the same, and so is their order; gate's and up's are not.
            seed = sum(map(ord, name.replace("q_proj", "k_proj").replace("v_proj", "k_proj")))
            order = np.random.default_rng(seed).permutation(cols)
        q, scale, zero, expanded = round_groups(w, bits, columns, symmetric, np.float16, order)
        group = np.empty(cols, np.int32)
        group[np.arange(cols) if order is None else order] = np.arange(cols) // columns
        return {name + ".qweight": pack(q.T, bits, 0), name + ".g_idx": group,
                name + ".qzeros": pack(zero.T - offset, bits, 1),
                name + ".scales": np.ascontiguousarray(scale.T)}, expanded  # fmt: skip

    return make


def packed(columns, symmetric, act_order):
    def make(name, w, rng):
        cols = w.shape[1]
        order = np.random.default_rng(5).permutation(cols) if act_order else None
        q, scale, zero, expanded = round_groups(w, 4, columns, symmetric, to_bf16, order)
        out = {name + ".weight_packed": pack(q, 4, 1), name + ".weight_scale": Bf16(scale),
               name + ".weight_shape": np.array(w.shape, np.int64)}  # fmt: skip
        if not symmetric:
            out[name + ".weight_zero_point"] = pack(zero, 4, 0)
        if act_order:
            group = np.empty(cols, np.int32)
            group[order] = np.arange(cols) // columns
            out[name + ".weight_g_idx"] = group
        return out, expanded

    return make


def int_quantized(name, w, rng):
    q, scale, zero, expanded = round_groups(w, 8, w.shape[1], True, to_bf16)
    return {name + ".weight": (q - 128).astype(np.int8), name + ".weight_scale": Bf16(scale)}, expanded


def float_quantized(name, w, rng):
    scale = to_bf16(np.abs(w).max(1, keepdims=True) / 448)
    codes = to_f8(w / scale)
    return {name + ".weight": F8(codes), name + ".weight_scale": Bf16(scale)}, from_f8(codes) * scale


def fp8_block(name, w, rng):
    scale = np.stack([[np.abs(block).max() / 448 for block in np.split(rows, range(128, w.shape[1], 128), 1)]
                      for rows in np.split(w, range(128, w.shape[0], 128))]).astype(np.float32)  # fmt: skip
    whole = np.kron(scale, np.ones((128, 128), np.float32))[: w.shape[0], : w.shape[1]]
    codes = to_f8(w / whole)
    return {name + ".weight": F8(codes), name + ".weight_scale_inv": scale}, from_f8(codes) * whole


def compressed(form, **weights):
    return {"quant_method": "compressed-tensors", "format": form, "ignore": ["lm_head"],
            "quantization_status": "compressed",
            "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}}}  # fmt: skip


FORMATS = {
    "awq": (awq, {"quant_method": "awq", "bits": 4, "group_size": 64, "zero_point": True,
                  "version": "gemm", "modules_to_not_convert": None}),
    "gptq": (gptq(4, 128, False, 1, False),
             {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False, "sym": False}),
    "gptq_v2": (gptq(8, 32, True, 0, False),
                {"quant_method": "gptq", "bits": 8, "group_size": 32, "desc_act": False, "sym": True,
                 "checkpoint_format": "gptq_v2"}),
    "gptq_act_order": (gptq(4, 32, False, 1, True),
                       {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": True,
                        "sym": False, "checkpoint_format": "gptq"}),
    "packed": (packed(128, True, False),
               compressed("pack-quantized", num_bits=4, type="int", symmetric=True, group_size=128)),
    "packed_act_order": (packed(32, False, True),
                         compressed("pack-quantized", num_bits=4, type="int", symmetric=False,
                                    group_size=32, actorder="group")),
    "int_quantized": (int_quantized, compressed("int-quantized", num_bits=8, type="int",
                                                symmetric=True, strategy="channel")),
    "float_quantized": (float_quantized, compressed("float-quantized", num_bits=8, type="float",
                                                    symmetric=True, strategy="channel")),
    "fp8_block": (fp8_block, {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic",
                              "weight_block_size": [128, 128]}),
}  # fmt: skip


# ---- Models ----


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


class Model:
    """What llama and gpt-oss have in common, in float64."""

    def __init__(self, config, weights):
        self.c = config
        self.w = {name: np.asarray(w, np.float64) for name, w in weights.items()}
        self.heads, self.kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
        self.dim = config["head_dim"]

    def norm(self, x, name):
        mean = (x * x).mean(-1, keepdims=True)
        return x / np.sqrt(mean + self.c["rms_norm_eps"]) * self.w[name]

    def linear(self, x, name):
        return x @ self.w[name + ".weight"].T + self.w.get(name + ".bias", 0)

    def frequencies(self):
        return self.c["rope_theta"] ** (-np.arange(0, self.dim, 2) / self.dim), 1.0

    def rotate(self, x):
        frequencies, scale = self.frequencies()
        angles = np.arange(len(x))[:, None] * frequencies
        cosines = np.concatenate([np.cos(angles)] * 2, -1)[:, None] * scale
        sines = np.concatenate([np.sin(angles)] * 2, -1)[:, None] * scale
        half = self.dim // 2
        return x * cosines + np.concatenate([-x[..., half:], x[..., :half]], -1) * sines

    def visible(self, count, layer):
        return np.tril(np.ones((count, count))) > 0

    def attention(self, x, prefix, layer):
        count = len(x)
        q, k, v = (
            self.linear(x, f"{prefix}self_attn.{name}_proj").reshape(count, -1, self.dim)
            for name in "qkv"
        )
        q, k = self.rotate(q), self.rotate(k)
        k, v = (np.repeat(kv, self.heads // self.kv_heads, 1) for kv in (k, v))
        scores = np.einsum("ihd,jhd->hij", q, k) / np.sqrt(self.dim)
        scores = np.where(self.visible(count, layer), scores, -np.inf)
        sinks = self.w.get(prefix + "self_attn.sinks")
        if sinks is not None:
            column = np.broadcast_to(sinks[:, None, None], scores.shape[:2] + (1,))
            scores = np.concatenate([scores, column], -1)
        p = softmax(scores)[..., :count]
        out = np.einsum("hij,jhd->ihd", p, v).reshape(count, -1)
        return self.linear(out, prefix + "self_attn.o_proj")

    def feed_forward(self, x, prefix):
        gate = self.linear(x, prefix + "mlp.gate_proj")
        up = self.linear(x, prefix + "mlp.up_proj")
        return self.linear(gate / (1 + np.exp(-gate)) * up, prefix + "mlp.down_proj")

    def logits(self, ids):
        x = self.w["model.embed_tokens.weight"][ids]
        for layer in range(self.c["num_hidden_layers"]):
            prefix = f"model.layers.{layer}."
            x = x + self.attention(self.norm(x, prefix + "input_layernorm.weight"), prefix, layer)
            h = self.norm(x, prefix + "post_attention_layernorm.weight")
            x = x + self.feed_forward(h, prefix)
        return self.norm(x, "model.norm.weight") @ self.w["lm_head.weight"].T


class GptOss(Model):
    def frequencies(self):
        """YaRN (Peng et al.), its ramp not rounded to whole dimensions."""
        rope = self.c["rope_parameters"]
        plain = rope["rope_theta"] ** (-np.arange(0, self.dim, 2) / self.dim)

        def dimension(rotations):
            length = rope["original_max_position_embeddings"] / (rotations * 2 * np.pi)
            return self.dim * np.log(length) / (2 * np.log(rope["rope_theta"]))

        low = max(dimension(rope["beta_fast"]), 0)
        high = min(dimension(rope["beta_slow"]), self.dim - 1)
        ramp = np.clip((np.arange(self.dim // 2) - low) / max(high - low, 1e-3), 0, 1)
        scaled = plain / rope["factor"] * ramp + plain * (1 - ramp)
        return scaled, 0.1 * np.log(rope["factor"]) + 1

    def visible(self, count, layer):
        i, j = np.indices((count, count))
        seen = j <= i
        if self.c["layer_types"][layer] == "sliding_attention":
            seen &= i - j < self.c["sliding_window"]
        return seen

    def feed_forward(self, x, prefix):
        scores = self.linear(x, prefix + "mlp.router")
        out = np.zeros_like(x)
        experts = prefix + "mlp.experts."
        for row, s in enumerate(scores):
            best = np.argsort(-s, kind="stable")[: self.c["num_experts_per_tok"]]
            for expert, share in zip(best, softmax(s[best])):
                both = x[row] @ self.w[experts + "gate_up_proj"][expert]
                both = both + self.w[experts + "gate_up_proj_bias"][expert]
                gate, up = np.minimum(both[::2], 7.0), np.clip(both[1::2], -7.0, 7.0)
                act = gate / (1 + np.exp(-1.702 * gate)) * (up + 1)
                down = act @ self.w[experts + "down_proj"][expert]
                out[row] += share * (down + self.w[experts + "down_proj_bias"][expert])
        return out


class Deepseek(Model):
    def frequencies(self):
        rope = self.c["rope_parameters"]["rope_theta"]
        return rope ** (-np.arange(0, self.dim, 2) / self.dim), 1.0

    def rotate(self, x):
        """Pairs are of neighbours."""
        return super().rotate(np.concatenate([x[..., ::2], x[..., 1::2]], -1))

    def attention(self, x, prefix, layer):
        count, c, prefix = len(x), self.c, prefix + "self_attn."
        nope, rank = c["qk_nope_head_dim"], c["kv_lora_rank"]
        q = self.norm(self.linear(x, prefix + "q_a_proj"), prefix + "q_a_layernorm.weight")
        q = self.linear(q, prefix + "q_b_proj").reshape(count, self.heads, -1)
        kv = self.linear(x, prefix + "kv_a_proj_with_mqa")
        latent = self.norm(kv[:, :rank], prefix + "kv_a_layernorm.weight")
        heads = self.linear(latent, prefix + "kv_b_proj").reshape(count, self.heads, -1)
        q = np.concatenate([q[..., :nope], self.rotate(q[..., nope:])], -1)
        shared = np.repeat(self.rotate(kv[:, None, rank:]), self.heads, 1)
        k = np.concatenate([heads[..., :nope], shared], -1)
        scores = np.einsum("ihd,jhd->hij", q, k) / np.sqrt(q.shape[-1])
        p = softmax(np.where(self.visible(count, layer), scores, -np.inf))
        out = np.einsum("hij,jhd->ihd", p, heads[..., nope:]).reshape(count, -1)
        return self.linear(out, prefix + "o_proj")

    def feed_forward(self, x, prefix):
        if prefix + "mlp.gate.weight" not in self.w:
            return super().feed_forward(x, prefix)
        c = self.c
        scores = 1 / (1 + np.exp(-self.linear(x, prefix + "mlp.gate")))
        choice = scores + self.w[prefix + "mlp.gate.e_score_correction_bias"]
        groups = np.sort(choice.reshape(len(x), c["n_group"], -1), -1)[..., -2:].sum(-1)
        out = self.one(x, prefix + "mlp.shared_experts")
        for row in range(len(x)):
            allowed = np.argsort(-groups[row], kind="stable")[: c["topk_group"]]
            size = choice.shape[1] // c["n_group"]
            masked = np.where(np.isin(np.arange(choice.shape[1]) // size, allowed),
                              choice[row], -np.inf)  # fmt: skip
            best = np.argsort(-masked, kind="stable")[: c["num_experts_per_tok"]]
            shares = scores[row][best] / scores[row][best].sum() * c["routed_scaling_factor"]
            for expert, share in zip(best, shares):
                out[row] += share * self.one(x[row], f"{prefix}mlp.experts.{expert}")
        return out

    def one(self, x, name):
        gate = self.linear(x, name + ".gate_proj")
        act = gate / (1 + np.exp(-gate)) * self.linear(x, name + ".up_proj")
        return self.linear(act, name + ".down_proj")


# ---- Golden values ----


def log_sum_exp(x):
    most = x.max(-1)
    return most + np.log(np.exp(x - most[..., None]).sum(-1))


def golden_prompt(model, ids):
    rows = model.logits(np.array(ids))
    last = rows[-1]
    nll = None
    if len(ids) > 1:
        chosen = rows[np.arange(len(ids) - 1), ids[1:]]
        nll = round(float((log_sum_exp(rows[:-1]) - chosen).mean()), 6)
    top = np.argsort(-last, kind="stable")[:16]
    greedy, margins, sequence = [], [], list(ids)
    for _ in range(GREEDY):
        row = model.logits(np.array(sequence))[-1]
        second, first = np.sort(row)[-2:]
        greedy.append(int(row.argmax()))
        margins.append(round(float(first - second), 4))
        sequence.append(greedy[-1])
    return {"ids": [int(i) for i in ids], "top16": [[int(i), round(float(last[i]), 5)] for i in top],
            "mean": round(float(last.mean()), 6), "std": round(float(last.std()), 6), "nll": nll,
            "greedy": greedy, "margins": margins}  # fmt: skip


def write_golden(folder, name, model, vocab):
    rng = np.random.default_rng(3)
    prompts = [golden_prompt(model, rng.integers(0, vocab, count)) for count in PROMPTS]
    golden = {"architecture": name, "reference": "NumPy, float64", "prompts": prompts}
    (folder / "golden.json").write_text(json.dumps(golden, separators=(",", ":")))


def folder_of(name):
    folder = DATA / "quantized" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def write_config(folder, config):
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")


LLAMA = {
    "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 1, "hidden_size": 128,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "intermediate_size": 256,
    "vocab_size": 96, "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
    "hidden_act": "silu", "tie_word_embeddings": False, "eos_token_id": 0,
}  # fmt: skip


def llama_weights():
    """Matrices to quantise by the names of their modules, and the tensors that stay as they are."""
    rng = np.random.default_rng(1)
    hidden, ffn, kv = 128, 256, 64

    def matrix(rows, cols):
        return (rng.standard_normal((rows, cols)) / np.sqrt(cols)).astype(np.float32)

    def norm():
        return Bf16(1 + 0.1 * rng.standard_normal(hidden))

    matrices, rest = {}, {"model.embed_tokens.weight": Bf16(rng.standard_normal((96, hidden)))}
    for layer in range(LLAMA["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        rest[prefix + "input_layernorm.weight"] = norm()
        rest[prefix + "post_attention_layernorm.weight"] = norm()
        for name, rows, cols in [
            ("self_attn.q_proj", hidden, hidden), ("self_attn.k_proj", kv, hidden),
            ("self_attn.v_proj", kv, hidden), ("self_attn.o_proj", hidden, hidden),
            ("mlp.gate_proj", ffn, hidden), ("mlp.up_proj", ffn, hidden),
            ("mlp.down_proj", hidden, ffn),
        ]:  # fmt: skip
            matrices[prefix + name] = matrix(rows, cols)
    rest["model.norm.weight"] = norm()
    rest["lm_head.weight"] = Bf16(2 * matrix(96, hidden))
    return matrices, rest


def write_llama(name, make, quantization):
    matrices, rest = llama_weights()
    folder = folder_of(name)
    tensors = dict(rest)
    weights = {name: tensor.values for name, tensor in rest.items()}
    rng = np.random.default_rng(2)
    for module, w in matrices.items():
        parts, weights[module + ".weight"] = make(module, w, rng)
        tensors.update(parts)
    write_safetensors(folder / "model.safetensors", tensors)
    write_config(folder, {**LLAMA, "quantization_config": quantization})
    write_golden(folder, name, Model(LLAMA, weights), LLAMA["vocab_size"])


def block_bytes(codes, head):
    """Blocks of GGUF: the bytes of `head`, then columns i and i + 16 in the halves of byte i."""
    nibbles = codes[..., :16] | codes[..., 16:] << 4
    return np.concatenate([head, nibbles.astype(np.uint8)], -1).tobytes()


def write_gguf_llama():
    matrices, rest = llama_weights()
    folder = folder_of("gguf_iq4_nl_mxfp4")
    weights = {name: tensor.values for name, tensor in rest.items()}
    names = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
             "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
             "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
             "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}  # fmt: skip
    tensors = {}

    def ours(module):
        _, _, layer, rest_of = module.split(".", 3)
        return f"blk.{layer}.{names[rest_of]}.weight"

    for name, tensor in rest.items():
        module = name.removesuffix(".weight")
        top = {"model.embed_tokens": "token_embd.weight", "model.norm": "output_norm.weight",
               "lm_head": "output.weight"}  # fmt: skip
        values = tensor.values.astype(np.float32)
        tensors[top.get(module) or ours(module)] = (0, values.shape, values.tobytes())
    for module, w in matrices.items():
        if "self_attn" in module:
            grouped = w.reshape(len(w), -1, 32)
            scale = (np.abs(grouped).max(-1, keepdims=True) / 120).astype(np.float16)
            codes = nearest(IQ4_NL, grouped / scale.astype(np.float32)).astype(np.uint8)
            expanded = (IQ4_NL[codes] * scale.astype(np.float32)).reshape(w.shape)
            kind, head = 20, scale.view(np.uint8)
        else:
            codes, exponents, expanded = round_mxfp4(w)
            kind, head = 39, exponents[..., None]
        weights[module + ".weight"] = expanded
        if module.endswith(("q_proj", "k_proj")):  # rows in the order of the interleaved rotation
            dim = LLAMA["head_dim"]
            index = np.arange(len(w)).reshape(-1, 2, dim // 2).swapaxes(1, 2).reshape(-1)
            codes, head = codes[index], head[index]
        tensors[ours(module)] = (kind, w.shape, block_bytes(codes, head))
    metadata = {
        "general.architecture": "llama", "llama.block_count": 1, "llama.embedding_length": 128,
        "llama.attention.head_count": 4, "llama.attention.head_count_kv": 2,
        "llama.feed_forward_length": 256, "llama.context_length": 512,
        "llama.attention.layer_norm_rms_epsilon": 1e-5, "llama.rope.freq_base": 10000.0,
    }  # fmt: skip
    write_gguf(folder / "model.gguf", metadata, tensors)
    write_golden(folder, "gguf_iq4_nl_mxfp4", Model(LLAMA, weights), LLAMA["vocab_size"])


def first_layers(name, model):
    """Configuration and weights of the first two layers of a tiny checkpoint."""
    source = DATA / "tiny" / name
    config = json.loads((source / "config.json").read_text())
    weights = read_safetensors(source / "model.safetensors")
    # The model here is that of transformers, which made the golden values of the whole.
    whole = model(config, weights)
    for prompt in json.loads((source / "golden.json").read_text())["prompts"]:
        last = whole.logits(np.array(prompt["ids"]))[-1]
        assert max(abs(last[i] - value) for i, value in prompt["top16"]) < 1e-3
    config["num_hidden_layers"] = 2
    if "layer_types" in config:
        config["layer_types"] = config["layer_types"][:2]
    later = (".layers.2.", ".layers.3.")
    return config, {k: w for k, w in weights.items() if not any(part in k for part in later)}


def write_deepseek():
    """The tiny DeepSeek V3 in 8-bit floats by blocks."""
    config, original = first_layers("deepseek_v3", Deepseek)
    tensors, weights = {}, {}
    for name, w in original.items():
        module = name.removesuffix(".weight")
        if module.endswith(("_proj", "_mqa")):
            parts, weights[name] = fp8_block(module, w, None)
            tensors.update(parts)
        else:
            tensors[name], weights[name] = Bf16(w), w
    folder = folder_of("deepseek_fp8_block")
    write_safetensors(folder / "model.safetensors", tensors)
    write_config(folder, {**config, "quantization_config": FORMATS["fp8_block"][1]})
    write_golden(folder, "deepseek_fp8_block", Deepseek(config, weights), config["vocab_size"])


def write_gpt_oss():
    """The tiny gpt-oss, its experts in MXFP4."""
    config, original = first_layers("gpt_oss", GptOss)
    tensors, weights = {}, {}
    for name, w in original.items():
        if not name.endswith(("gate_up_proj", "down_proj")):
            tensors[name], weights[name] = Bf16(w), w
            continue
        # [experts][in][out] becomes blocks of [experts][out][in].
        codes, exponents, expanded = round_mxfp4(np.ascontiguousarray(w.swapaxes(1, 2)))
        weights[name] = expanded.swapaxes(1, 2)
        tensors[name + "_blocks"] = (codes[..., ::2] | codes[..., 1::2] << 4).astype(np.uint8)
        tensors[name + "_scales"] = exponents
    folder = folder_of("gpt_oss_mxfp4")
    write_safetensors(folder / "model.safetensors", tensors)
    quantization = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn"]}
    write_config(folder, {**config, "quantization_config": quantization})
    write_golden(folder, "gpt_oss_mxfp4", GptOss(config, weights), config["vocab_size"])


def main():
    for name, (make, quantization) in FORMATS.items():
        write_llama(name, make, quantization)
    write_gguf_llama()
    write_gpt_oss()
    write_deepseek()


if __name__ == "__main__":
    main()
