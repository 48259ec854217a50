#!/usr/bin/env bash
# Puts the parts of CUDA 13.0 that a build needs into the cache folder, from their wheels (about
# 500 MB), and prints where they are: for machines without the toolkit.
#   cmake --preset cuda -DKVASIR_CUDA_ROOT="$(scripts/setup_cuda.sh)"
set -euo pipefail

folder=${XDG_CACHE_HOME:-$HOME/.cache}/kvasir/cuda-13.0
root=$folder/nvidia/cu13
if [ ! -x "$root/bin/nvcc" ] || [ ! -e "$root/include/cublasLt.h" ]; then
  python3 -m venv "$folder/venv" >&2
  "$folder/venv/bin/pip" install --quiet --target "$folder" \
    nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-crt==13.0.88 \
    nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85 nvidia-cublas==13.0.2.14 >&2
fi
echo "$root"
