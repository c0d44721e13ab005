#!/usr/bin/env bash
# transformers 5.23.0: encoders of Pegasus and Marian read `inputs_embeds` of their own table as another input than the ids.
#
# Versions: transformers 5.23.0, torch 2.13.0 (CPU); Python 3.11
# Expected: `model(inputs_embeds=model.get_input_embeddings()(ids), …)` gives the loss of `model(input_ids=ids, …)`, as it does for T5,
#   BART and M2M100: M2M100's embedding module multiplies by √d_model itself where `scale_embedding` is set.
# Behaviour: Pegasus and Marian with `scale_embedding=True`, as their released configurations have it, multiply by √d_model in the
#   encoder, and only where it looks ids up. Embeddings that are given go in unscaled, without a word. So a soft prompt that is put in
#   front of embedded text stands in front of a text that the model never reads like this.
# Seen: relative differences of the loss: t5 0, m2m_100 0, pegasus and marian above .001
# Exit status 0 while this is so, 1 when it has changed.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q 'transformers==5.23.0' 'torch==2.13.0'
"$work/venv/bin/python" - <<'PY'
import torch
from transformers import (M2M100Config, M2M100ForConditionalGeneration, MarianConfig, MarianMTModel,
                          PegasusConfig, PegasusForConditionalGeneration, T5Config, T5ForConditionalGeneration)
small = dict(vocab_size=64, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4,
             encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=64, scale_embedding=True, init_std=1.,
             pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=0)
models = dict(
    t5=(T5ForConditionalGeneration, T5Config(vocab_size=64, d_model=32, d_kv=8, num_heads=4, d_ff=64, num_layers=2, decoder_start_token_id=0)),
    m2m_100=(M2M100ForConditionalGeneration, M2M100Config(**small)),
    pegasus=(PegasusForConditionalGeneration, PegasusConfig(**small)),
    marian=(MarianMTModel, MarianConfig(**small)))
ids, labels = torch.tensor([[5, 9, 33, 12, 2]]), torch.tensor([[7, 8, 2]])
far = {}
for name, (kind, config) in models.items():
    torch.manual_seed(0)
    model = kind(config).eval()
    with torch.no_grad():
        by_ids = model(input_ids=ids, labels=labels).loss
        by_rows = model(inputs_embeds=model.get_input_embeddings()(ids), labels=labels).loss
    far[name] = (abs(by_ids - by_rows)/by_ids).item()
    print(f'{name}: relative difference of the loss {far[name]:.2g}')
as_said = all(far[n] < 1e-5 for n in ('t5', 'm2m_100')) and all(far[n] > 1e-3 for n in ('pegasus', 'marian'))
raise SystemExit(0 if as_said else 'changed: not what stands above')
PY
