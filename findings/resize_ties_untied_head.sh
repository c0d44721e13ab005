#!/usr/bin/env bash
# transformers 5.23.0: resizing the vocabulary of a T5 with a head of its own ties the head to the embedding table.
#
# Versions: transformers 5.23.0, torch 2.13.0 (CPU); Python 3.11
# Expected: `resize_token_embeddings` of a T5 v1.1 (tie_word_embeddings=False), read back from a folder, keeps the trained head's first rows,
#   as it keeps those of the table.
# Behaviour: T5Config keeps `tie_word_embeddings=True` whatever it is given. Loading sees that the file holds two different tensors, says
#   so and does not tie them. Resizing asks the configuration alone: afterwards `lm_head.weight` is `shared.weight`, and the trained head
#   is gone without a word.
# Seen: before: two tensors, the head equal to what was saved; after: one tensor
# Exit status 0 while this is so, 1 when it has changed.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q 'transformers==5.23.0' 'torch==2.13.0'
cd "$work"
"$work/venv/bin/python" - <<'PY'
import torch
from transformers import T5Config, T5ForConditionalGeneration
torch.manual_seed(0)
model = T5ForConditionalGeneration(T5Config(
    vocab_size=40, d_model=16, d_kv=4, num_heads=4, d_ff=32, num_layers=1, feed_forward_proj='gated-gelu',
    tie_word_embeddings=False, decoder_start_token_id=0))
head = torch.randn(40, 16)
model.lm_head.weight = torch.nn.Parameter(head.clone())
model.save_pretrained('t5')
model = T5ForConditionalGeneration.from_pretrained('t5')
kept = torch.equal(model.lm_head.weight, head) and model.lm_head.weight is not model.shared.weight
model.resize_token_embeddings(36, mean_resizing=False)
tied, gone = model.lm_head.weight is model.shared.weight, not torch.equal(model.lm_head.weight, head[:36])
print(f'before: own head kept {kept}; after resizing: tied {tied}, trained rows gone {gone}')
raise SystemExit(0 if kept and tied and gone else 'changed: not what stands above')
PY
