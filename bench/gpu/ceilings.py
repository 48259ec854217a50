#!/usr/bin/env python3
"""What the GPU can do at most, by PyTorch: reading memory and multiplying matrices."""

import json
import time

import torch


def show(figure, value, unit):
    print(json.dumps({"figure": figure, "value": round(value, 3), "unit": unit}))


def best(run, rounds=20):
    run()
    times = []
    for _ in range(rounds):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        run()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    return sorted(times)[len(times) // 2]


def main():
    numbers = torch.empty(4 << 30, dtype=torch.int8, device="cuda").view(torch.float32)
    numbers.fill_(1.0)
    seconds = best(lambda: torch.max(numbers))
    show("read", numbers.numel() * 4 / seconds / 1e12, "TB/s")
    del numbers
    for m, n, k in [(8192, 8192, 8192), (8192, 28672, 4096), (8192, 4096, 14336)]:
        a = torch.randn(m, k, device="cuda", dtype=torch.bfloat16)
        b = torch.randn(n, k, device="cuda", dtype=torch.bfloat16)
        seconds = best(lambda: a @ b.T)
        show(f"BF16 {m} x {n} x {k}", 2 * m * n * k / seconds / 1e12, "TFLOP/s")


if __name__ == "__main__":
    main()
