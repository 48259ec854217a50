#!/usr/bin/env python3
"""Trains the two tiny vocabularies of this folder: byte-level BPE and SentencePiece BPE.

Usage: make_tiny_vocabularies.py    (writes tiny_bpe.json and tiny_spm.json beside itself)

The fields are those of a GGUF file's tokenizer metadata.
"""
import collections
import json
import pathlib
import re

CORPUS = """
The quick brown fox jumps over the lazy dog. The dog sleeps; the fox does not.
Hello, world! Hello again, my friend. What is the capital of France? Paris is the capital.
You are a helpful assistant. The user asks and the assistant answers the user.
It was the best of times, it was the worst of times, it was the age of wisdom.
int main() { return 0; }  // the end of the program
for i in range(10): print(i, i * i)  # numbers 12 345 6789
Grüße aus München, naïve café, žluťoučký kůň, こんにちは世界, 你好, привет мир, 😀 🚀
"""
MERGES = 220


def byte_letters():
    printable = [*range(33, 127), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters, extra = {}, 256
    for byte in range(256):
        if byte in printable:
            letters[byte] = chr(byte)
        else:
            letters[byte] = chr(extra)
            extra += 1
    return letters


def train(words):
    """Merges of the most frequent neighbours, ties to the smaller pair."""
    words = [(list(word), count) for word, count in sorted(collections.Counter(words).items())]
    merges = []
    while len(merges) < MERGES:
        pairs = collections.Counter()
        for word, count in words:
            for pair in zip(word, word[1:]):
                pairs[pair] += count
        if not pairs:
            break
        best = min(pairs, key=lambda p: (-pairs[p], p))
        merges.append(best)
        for word, _ in words:
            i = 0
            while i + 1 < len(word):
                if (word[i], word[i + 1]) == best:
                    word[i:i + 2] = ["".join(best)]
                i += 1
    return merges


def bpe():
    letters = byte_letters()
    words = re.findall(r" ?\w+| ?[^\s\w]+|\s+", CORPUS)
    merges = train("".join(letters[b] for b in word.encode()) for word in words)
    control = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    user = ["<tool_call>", "</tool_call>"]
    tokens = control + list(letters.values()) + ["".join(m) for m in merges] + user
    types = [3] * len(control) + [1] * (256 + len(merges)) + [4] * len(user)
    return {"model": "gpt2", "pre": "gpt-2", "tokens": tokens, "types": types,
            "merges": [" ".join(m) for m in merges], "bos_id": 0, "eos_id": 2}


def spm():
    words = re.findall(r"▁?[^▁\n]+|▁", CORPUS.replace(" ", "▁"))
    merges = train(words)
    characters = sorted({c for word in words for c in word})
    control = ["<unk>", "<s>", "</s>"]
    byte_tokens = [f"<0x{b:02X}>" for b in range(256)]
    pieces = ["".join(m) for m in merges] + characters
    pieces = list(dict.fromkeys(pieces))
    user = ["<|user|>"]
    tokens = control + byte_tokens + pieces + user
    types = [2, 3, 3] + [6] * 256 + [1] * len(pieces) + [4]
    scores = [0.0] * 259 + [-float(i) for i in range(len(pieces))] + [0.0]
    return {"model": "llama", "pre": "default", "tokens": tokens, "types": types, "scores": scores,
            "merges": [], "bos_id": 1, "eos_id": 2, "unk_id": 0, "add_bos": True}


for name, vocabulary in (("tiny_bpe", bpe()), ("tiny_spm", spm())):
    path = pathlib.Path(__file__).with_name(name + ".json")
    path.write_text(json.dumps(vocabulary, ensure_ascii=False) + "\n")
