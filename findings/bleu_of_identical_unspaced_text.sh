#!/usr/bin/env bash
# sacrebleu 2.6.0: BLEU of a text with itself is 0 where its script writes no blanks and the tokenizer is T5's, "intl".
#
# Versions: sacrebleu 2.6.0; Python 3.11
# Expected: a corpus of predictions that equal their references scores 100 with every tokenizer.
# Behaviour: "intl" makes one token of a Chinese clause. A corpus whose texts all have fewer than four tokens has no 4-grams, and corpus
#   BLEU without effective order is then 0, identical or not. "zh" splits into characters and gives 100.
# Seen: intl 0.0, zh 100.0, English with intl 100.0
# Exit status 0 while this is so, 1 when it has changed.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q 'sacrebleu==2.6.0'
"$work/venv/bin/python" - <<'PY'
from sacrebleu import corpus_bleu
chinese = ['磨坊旁边的旅馆供应早餐', '这座桥建于一九二四年']
english = ['The inn beside the mill serves breakfast .', 'The bridge was built in that very year .']
score = {f'{text}, {tokens}': corpus_bleu(texts, [texts], tokenize=tokens).score
         for text, texts in dict(Chinese=chinese, English=english).items() for tokens in ('intl', 'zh')}
for what, value in score.items(): print(f'{what}: {value:.1f}')
as_said = score['Chinese, intl'] == 0 and min(score['Chinese, zh'], score['English, intl']) > 99.9
raise SystemExit(0 if as_said else 'changed: not what stands above')
PY
