#!/usr/bin/env python3
"""Writes the seeds of the fuzz targets into fuzz/corpus: small valid files and answers to mutate."""

import json
import pathlib
import struct

CORPUS = pathlib.Path(__file__).parent / "corpus"
U32, FLOAT, BOOL, STRING, ARRAY = 4, 6, 7, 8, 9

# Their first letters are kinds: JSON schema, regex, grammar, choice.
GRAMMARS = {
    "object": 'j{"type":"object","properties":{"ab":{"type":"integer","minimum":1},"c":{"enum":["x",2]}},'
    '"required":["ab"],"additionalProperties":false}',
    "recursive": 'j{"$ref":"#/$defs/n","$defs":{"n":{"anyOf":[{"type":"null"},{"type":"array",'
    '"items":{"$ref":"#/$defs/n"},"maxItems":2}]}}}',
    "string": 'j{"type":"string","pattern":"^a[0-9]{2,4}$","x-guidance":{"whitespace_flexible":true}}',
    "regex": "r(ab|c[^d-f]+)*\\n?x{2,3}",
    "lark": 'gstart: a "+" B\na: "ab" | "(" a ")"\nB: /[0-9]+/i & ~"7"\n%ignore /[ ]+/\n',
    "lark_json": 'gstart: "<" j ">"\nj: %json {"type":"boolean"}\n',
    "ebnf": 'groot ::= a ("," a)* # all\na ::= [a-c\\n] {1,2} | "(" root ")"\n',
    "choice": 'cyes\n"no"',
}


# What clients send on a connection.
CHAT = {
    "model": "m",
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "x", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "x", "content": "done"},
    ],
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
    "tool_choice": "auto", "stream": True, "stream_options": {"include_usage": True},
    "logit_bias": {"5": -1.5}, "logprobs": True, "top_logprobs": 2, "n": 2, "seed": 1,
}  # fmt: skip
COMPLETION = {
    "prompt": [[1, 2], [3]], "max_tokens": 4, "temperature": 0.5, "top_p": 0.9, "min_p": 0.1,
    "stop": ["a", "b"], "logprobs": 1, "guided_choice": ["x", "y"], "priority": 2,
    "cache_salt": "s", "bad_words": ["z"], "allowed_token_ids": [1, 2],
}  # fmt: skip


def post(path, body, headers=""):
    content = json.dumps(body)
    return (
        f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n{headers}"
        f"Content-Length: {len(content)}\r\n\r\n{content}"
    )


CHUNKED = (
    "POST /tokenize HTTP/1.1\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
    '7;x=1\r\n{"promp\r\n9\r\nt": "ab"}\r\n0\r\nT: 1\r\n\r\n'
)
CONNECTIONS = {
    "chat": post("/v1/chat/completions", CHAT, "X-Request-Id: r\r\n"),
    "completion": post("/v1/completions", COMPLETION, "Authorization: Bearer k\r\n"),
    "pipelined": post("/tokenize", {"prompt": "ab", "add_special_tokens": False})
    + post("/detokenize", {"tokens": [1, 2]}, "Connection: close\r\n"),
    "chunked": CHUNKED + "GET /v1/models/a%20b?c=d HTTP/1.0\r\n\r\n",
    "headers": "OPTIONS http://b/tokenize HTTP/1.1\r\nOrigin: http://a\r\n"
    "Access-Control-Request-Method: POST\r\ntracestate: a=1\r\n"
    "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n\r\n",
}


# Batches of KV events, in the three forms that vLLM has sent.
STORED = ["BlockStored", [2**63 + 1, -5], None, list(range(32)), 16, None, "GPU", None, [None, ["s"]], 0]
STORED_MAP = {
    "type": "BlockStored", "block_hashes": [bytes(range(32))], "parent_block_hash": bytes(16),
    "token_ids": [70000] * 16, "block_size": 16, "lora_id": 1, "medium": "CPU", "lora_name": "l",
    "group_idx": 1,
}  # fmt: skip
KV_EVENTS = {
    "arrays": [1.5, [STORED, ["BlockRemoved", [1, 2], "GPU"], ["AllBlocksCleared"]], 0],
    "maps_in_array": [1.5, [STORED_MAP, {"type": "BlockRemoved", "block_hashes": [bytes(8)]}]],
    "maps": {"ts": 2, "events": [STORED_MAP, {"type": "BlockMoved"}], "data_parallel_rank": 1},
    "first": [0.5, [["BlockStored", [1], 7, [1, 2], 2, None], ["BlockRemoved", [1]]]],
}


def msgpack(v):
    """Numbers in the longest forms: the fuzzer finds the others."""
    if v is None or isinstance(v, bool):
        return {None: b"\xc0", False: b"\xc2", True: b"\xc3"}[v]
    if isinstance(v, int):
        return b"\xcf" + struct.pack(">Q", v) if v >= 0 else b"\xd3" + struct.pack(">q", v)
    if isinstance(v, float):
        return b"\xcb" + struct.pack(">d", v)
    if isinstance(v, str):
        return b"\xd9" + struct.pack("B", len(v)) + v.encode()
    if isinstance(v, bytes):
        return b"\xc4" + struct.pack("B", len(v)) + v
    if isinstance(v, dict):
        return b"\xde" + struct.pack(">H", len(v)) + b"".join(
            msgpack(key) + msgpack(x) for key, x in v.items()
        )
    return b"\xdc" + struct.pack(">H", len(v)) + b"".join(msgpack(x) for x in v)


def save(target, name, content):
    path = CORPUS / target / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def text(s):
    return struct.pack("<Q", len(s)) + s.encode()


def value(v):
    if isinstance(v, bool):
        return struct.pack("<IB", BOOL, v)
    if isinstance(v, int):
        return struct.pack("<II", U32, v)
    if isinstance(v, float):
        return struct.pack("<If", FLOAT, v)
    if isinstance(v, str):
        return struct.pack("<I", STRING) + text(v)
    kind = STRING if isinstance(v[0], str) else FLOAT if isinstance(v[0], float) else U32
    return struct.pack("<IIQ", ARRAY, kind, len(v)) + b"".join(value(x)[4:] for x in v)


def gguf(metadata, tensors, version=3):
    out = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(metadata))
    for key, v in metadata.items():
        out += text(key) + value(v)
    data = b""
    for name, dims, kind, content in tensors:
        data += bytes(-len(data) % 32)
        out += text(name) + struct.pack("<I", len(dims))
        out += struct.pack(f"<{len(dims)}Q", *dims) + struct.pack("<IQ", kind, len(data))
        data += content
    return out + bytes(-len(out) % 32) + data


def safetensors(tensors):
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, dtype, shape, content in tensors:
        header[name] = {
            "dtype": dtype,
            "shape": shape,
            "data_offsets": [len(data), len(data) + len(content)],
        }
        data += content
    encoded = json.dumps(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + data


class Plan:
    """A plan of one layer over F32 weights of zeros (src/plan/plan_file.h)."""

    WIDTH, VOCAB, PAGE = 32, 16, 4096
    NODE = {
        "op": "", "inputs": [], "output": -1, "matrix": -1, "vector": -1, "bias": -1, "order": -1, "layer": -1,
        "scale": 1.0, "residual": False, "parts": 1, "head_width": 0, "column": 0, "table": 0,
        "window": 0, "softcap": 0.0, "gate": {"kind": "silu", "alpha": 1.0, "limit": 0.0},
        "routing": {"experts": 0, "used": 0, "groups": 1, "groups_used": 1, "score": "softmax",
                    "normalize": True, "scale": 1.0},
    }  # fmt: skip

    def __init__(self):
        self.values, self.nodes, self.matrices = [], [], []
        self.vectors, self.orders = [], []
        self.panel_bytes = []  # of each matrix

    def value(self, width, rows="tokens", copies=1, kind="f32"):
        name = f"v{len(self.values)}"
        self.values.append(
            {"name": name, "rows": rows, "type": kind, "width": width, "copies": copies}
        )
        return {"value": len(self.values) - 1, "column": 0, "width": width}

    def add(self, op, inputs, out=None, **fields):
        output = -1 if out is None else out["value"]
        self.nodes.append({**self.NODE, "op": op, "inputs": inputs, "output": output, **fields})
        return out

    def matrix(self, rows, cols):
        self.matrices.append({"format": "F32", "group": 0, "rows": rows, "cols": cols})
        self.panel_bytes.append(64 * cols)
        return len(self.matrices) - 1

    def ordered_product(self, x, width):
        """By 4-bit integers whose columns lie in another order."""
        self.orders.append(x["width"])
        ordered = self.value(x["width"], kind="int8")
        self.add("quantize", [x], ordered, order=len(self.orders) - 1)
        self.matrices.append({"format": "INT4+zero", "group": 32, "rows": width, "cols": x["width"]})
        self.panel_bytes.append(64 + x["width"] // 32 * (32 + 8 + 256))
        return self.add("matmul", [ordered], self.value(width), matrix=len(self.matrices) - 1)

    def norm(self, x, rows="tokens"):
        self.vectors.append(x["width"])
        out = self.value(x["width"], rows)
        return self.add("rms_norm", [x], out, vector=len(self.vectors) - 1)

    def product(self, x, width, rows="tokens", biased=False):
        matrix, bias = self.matrix(width, x["width"]), -1
        if biased:
            self.vectors.append(width)
            bias = len(self.vectors) - 1
        return self.add("matmul", [x], self.value(width, rows), matrix=matrix, bias=bias)

    def attention(self, x):
        q, k, v = (self.product(self.norm(x), self.WIDTH, biased=True) for _ in range(3))
        rotated = self.value(self.WIDTH)
        self.add("rope_kv_write", [q, k, v], rotated, layer=0, scale=0.25, head_width=16)
        o = self.add("attention", [rotated], self.value(self.WIDTH), layer=0, window=3)
        return self.add("add", [x, self.ordered_product(o, self.WIDTH)], self.value(self.WIDTH))

    def experts(self, x):
        routing = {**self.NODE["routing"], "experts": 4, "used": 2, "score": "sigmoid"}
        scores = self.product(x, 4)
        routed = self.add("route", [scores], self.value(4), routing=routing)
        rows = self.value(self.WIDTH, "routed", 2)
        self.add("dispatch", [x, routed], rows, routing=routing)
        y = self.value(self.WIDTH, "routed", 2)
        self.add("grouped_matmul", [rows], y, matrix=self.matrix(4 * 32, 32), parts=4)
        return self.add("combine", [y, routed], self.value(self.WIDTH))

    def file(self, x):
        last = self.add("select_rows", [x], self.value(self.WIDTH, "output"))
        logits = self.product(self.norm(last, "output"), self.VOCAB, "output")
        text_files = {"gguf_vocab": None, "tokenizer_json": "{}", "chat_template": "",
                      "bos_token": "", "eos_token": ""}  # fmt: skip
        content = json.dumps(text_files).encode()
        rope = {"theta": 1e4, "width": 16, "scaling": "none", "factor": 1.0, "original_context": 64,
                "attention_factor": 0.0, "low_frequency": 1.0, "high_frequency": 4.0,
                "beta_fast": 32.0, "beta_slow": 1.0, "mscale": 0.0, "mscale_all": 0.0,
                "truncate": True, "factors": [], "long_factors": []}  # fmt: skip
        header = {
            "model": {
                "architecture": "llama", "name": "seed", "fingerprint": "0", "activations": "int8",
                "eos_ids": [1], "layers": 1, "hidden": self.WIDTH, "heads": 2, "kv_heads": 2,
                "k_dim": 16, "v_dim": 16, "v_in_k": False, "vocab": self.VOCAB,
                "context_length": 64, "rms_eps": 1e-5, "ropes": [rope], "kv_type": "int8",
                "values": self.values, "nodes": self.nodes, "logits": logits["value"],
                "embedding": {"type": "F32", "rows": self.VOCAB, "cols": self.WIDTH},
            },
            "matrices": self.matrices, "sources": [],
        }  # fmt: skip
        end = 5 * self.PAGE

        def place(size):
            nonlocal end
            begin, end = end, -(-(end + size) // self.PAGE) * self.PAGE
            return {"offset": begin, "bytes": size}

        header["matrix_sections"] = [
            place(-(-m["rows"] // 16) * bytes)
            for m, bytes in zip(self.matrices, self.panel_bytes)
        ]
        header["vector_sections"] = [place(4 * width) for width in self.vectors]
        header["order_sections"] = [place(4 * width) for width in self.orders]
        header["embedding_section"] = place(4 * self.VOCAB * self.WIDTH)
        header["text_section"] = place(len(content))
        size = header["text_section"]["offset"] + len(content)
        header["file_bytes"] = size
        encoded = json.dumps(header).encode()
        assert len(encoded) < 5 * self.PAGE - 16
        out = b"KVASIRPL" + struct.pack("<II", 2, len(encoded)) + encoded
        return out + bytes(size - len(content) - len(out)) + content


def plans():
    for name, layer in [("dense", Plan.attention), ("experts", Plan.experts)]:
        plan = Plan()
        x = plan.add("embed", [], plan.value(Plan.WIDTH))
        yield name, plan.file(layer(plan, x))


def main():
    for name, content in plans():
        save("plan", name, content)
    config = {
        "general.architecture": "llama",
        "llama.block_count": 1,
        "llama.embedding_length": 32,
        "llama.attention.head_count": 2,
        "llama.attention.head_count_kv": 1,
        "llama.feed_forward_length": 64,
        "llama.context_length": 128,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": ["<s>", "</s>", "a"],
        "tokenizer.ggml.scores": [0.0, 0.0, -1.0],
        "tokenizer.ggml.token_type": [3, 3, 1],
        "tokenizer.ggml.merges": ["a a"],
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.add_bos_token": True,
    }
    embedding = ("token_embd.weight", [32, 3], 8, bytes(3 * 34))
    factors = ("rope_freqs.weight", [8], 0, struct.pack("<8f", *range(1, 9)))
    linear = {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 2.0}
    save("gguf", "llama", gguf(config, [embedding]))
    save("gguf", "factors", gguf(config, [embedding, factors], version=2))
    save("gguf", "linear", gguf({**config, **linear}, [embedding]))
    save("gguf", "empty", gguf({"general.alignment": 64}, []))
    shapes = {"attn_q": (32, 32), "attn_k": (16, 32), "attn_v": (16, 32), "attn_output": (32, 32),
              "ffn_gate_inp": (2, 32), "ffn_gate_exps": (2 * 16, 32), "ffn_up_exps": (2 * 16, 32),
              "ffn_down_exps": (2 * 32, 16), "attn_norm": (1, 32), "ffn_norm": (1, 32)}  # fmt: skip
    layer = [(f"blk.0.{name}.weight", [cols, rows] if rows > 1 else [cols], 0, bytes(4 * rows * cols))
             for name, (rows, cols) in shapes.items()]  # fmt: skip
    moe = {"llama.expert_count": 2, "llama.expert_used_count": 1,
           "llama.expert_feed_forward_length": 16}  # fmt: skip
    norm = ("output_norm.weight", [32], 0, bytes(128))
    save("gguf", "experts", gguf({**config, **moe}, [embedding, norm, *layer]))

    f32, bf16 = ("a", "F32", [2, 3], bytes(24)), ("b", "BF16", [4], bytes(8))
    save("safetensors", "two", safetensors([f32, bf16]))
    save("safetensors", "scalar", safetensors([("s", "F16", [], bytes(2))]))
    save("safetensors", "empty", safetensors([]))
    order = struct.pack("<32i", *([0] * 32))
    save("safetensors", "gptq", safetensors([
        ("m.qweight", "I32", [4, 8], bytes(128)), ("m.qzeros", "I32", [1, 1], bytes(4)),
        ("m.scales", "F16", [1, 8], bytes(16)), ("m.g_idx", "I32", [32], order)]))  # fmt: skip
    save("safetensors", "awq", safetensors([
        ("m.qweight", "I32", [32, 1], bytes(128)), ("m.qzeros", "I32", [1, 1], bytes(4)),
        ("m.scales", "F16", [1, 8], bytes(16))]))  # fmt: skip
    shape = struct.pack("<qq", 8, 32)
    save("safetensors", "packed", safetensors([
        ("m.weight_packed", "I32", [8, 4], bytes(128)), ("m.weight_shape", "I64", [2], shape),
        ("m.weight_zero_point", "I32", [1, 1], bytes(4)),
        ("m.weight_scale", "BF16", [8, 1], bytes(16))]))  # fmt: skip
    save("safetensors", "bytes", safetensors([
        ("m.weight", "I8", [4, 32], bytes(128)), ("m.weight_scale", "F32", [4, 1], bytes(16)),
        ("m.weight_zero_point", "I8", [4, 1], bytes(4))]))  # fmt: skip
    save("safetensors", "floats", safetensors([
        ("m.weight", "F8_E4M3", [4, 32], bytes(128)), ("m.weight_scale_inv", "F32", [1, 1], bytes(4))]))  # fmt: skip

    llama = {
        "architectures": ["LlamaForCausalLM"],
        "num_hidden_layers": 2,
        "hidden_size": 64,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 96,
        "vocab_size": 100,
        "max_position_embeddings": 128,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "eos_token_id": [1, 2],
    }
    llama3 = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    experts = {"num_local_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1}
    latent = {"kv_lora_rank": 16, "q_lora_rank": 16, "qk_rope_head_dim": 16, "qk_nope_head_dim": 16,
              "v_head_dim": 16, "n_group": 2, "topk_group": 1}  # fmt: skip
    yarn = {"rope_type": "yarn", "factor": 4.0, "beta_fast": 32.0, "truncate": False}
    longrope = {"type": "longrope", "short_factor": [1.0] * 8, "long_factor": [2.0] * 8}
    qwen2 = {"architectures": ["Qwen2ForCausalLM"], "use_sliding_window": True, "sliding_window": 8}
    gptq = {"quant_method": "gptq", "bits": 4, "checkpoint_format": "gptq_v2", "sym": True}
    awq = {"quant_method": "awq", "bits": 4, "version": "gemm", "zero_point": True}
    compressed = {"quant_method": "compressed-tensors", "format": "pack-quantized",
                  "sparsity_config": {"format": "dense"}, "transform_config": {}}  # fmt: skip
    fp8 = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]}
    for name, extra in [
        ("llama", {}),
        ("llama3", {"rope_scaling": llama3}),
        ("linear", {"rope_scaling": {"type": "linear", "factor": 2.0}}),
        ("parameters", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}),
        ("qwen2", qwen2),
        ("mixtral", {"architectures": ["MixtralForCausalLM"], **experts}),
        ("gpt_oss", {"architectures": ["GptOssForCausalLM"], **experts, "rope_scaling": yarn}),
        ("gemma3", {"architectures": ["Gemma3ForCausalLM"], "sliding_window": 8}),
        ("phi3", {"architectures": ["Phi3ForCausalLM"], "rope_scaling": longrope}),
        ("deepseek_v3", {"architectures": ["DeepseekV3ForCausalLM"], **experts, **latent}),
        ("gptq", {"quantization_config": gptq}),
        ("awq", {"quantization_config": awq}),
        ("compressed", {"quantization_config": compressed}),
        ("fp8", {"quantization_config": fp8}),
    ]:
        save("config", name, json.dumps({**llama, **extra}).encode())

    for name, seed in KV_EVENTS.items():
        save("kv_events", name, msgpack(seed))
    for name, seed in GRAMMARS.items():
        save("grammar", name, seed.encode())
    for name, seed in CONNECTIONS.items():
        save("http", name, b"\x0a" + seed.encode())
    hermes = '<tool_call>\n{"name": "f", "arguments": {"a": [1, "b"]}}\n</tool_call>'
    llama = '{"name": "f", "parameters": {"a": -1.5e3}}; {"name": "g"}'
    mistral = '[TOOL_CALLS] [{"name": "f", "arguments": {"a": null}}, {"name": "g"}]'
    named = '[TOOL_CALLS]f[CALL_ID]1[ARGS]{"a": true}[TOOL_CALLS]g{}'
    for name, kind, answer in [
        ("hermes", 1, hermes),
        ("qwen3", 6, f"<think>\nhm\n</think>\n\nok\n{hermes}\n{hermes}"),
        ("llama3", 2, llama),
        ("mistral", 3, f"ok {mistral}"),
        ("mistral_args", 4, named),
        ("think", 15, "hm\n</think>\nok"),
    ]:
        save("output_parser", name, bytes([kind, 5]) + answer.encode())


if __name__ == "__main__":
    main()
