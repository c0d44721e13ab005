#!/usr/bin/env bash
# transformers 5.23.0: a chat template loses the newline at its very end, and a label that follows is tokenised on another line's start.
#
# Versions: transformers 5.23.0, tokenizers 0.23.3, jinja2 3.1.6; Python 3.11
# Expected: `apply_chat_template` writes the literal text of a template as it stands, the newline behind the assistant's marker too.
# Behaviour: one newline at the end of the template is dropped (jinja2's keep_trailing_newline is off); the same newline inside an
#   expression, as most released templates have it, stays. So two templates that look alike end a prompt differently, and the first
#   token of the answer is another one.
# Seen: literal 'a<bot>', expression 'a<bot>\n'
# Exit status 0 while this is so, 1 when it has changed.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q 'transformers==5.23.0' 'tokenizers==0.23.3' 'jinja2==3.1.6'
"$work/venv/bin/python" - <<'PY'
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast
tok = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({'a': 0, '[UNK]': 1}, unk_token='[UNK]')))
said = {}
for kind, end in dict(literal='<bot>\n', expression="{{ '<bot>\n' }}").items():
    tok.chat_template = "{{ messages[0]['content'] }}" + end
    said[kind] = tok.apply_chat_template([dict(role='user', content='a')], tokenize=False)
    print(kind, repr(said[kind]))
raise SystemExit(0 if said == dict(literal='a<bot>', expression='a<bot>\n') else 'changed: not what stands above')
PY
