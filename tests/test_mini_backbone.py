"""The mini backbone: its size, its tokenizer, its loading without network, and that it was not trained on the suite."""
import hashlib, json, sys
from pathlib import Path
import numpy as np, pandas as pd, pytest, torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
from bayes_prompt.tasks import suite

ROOT = Path(__file__).resolve().parents[1]; ASSETS = ROOT/'bayes_prompt/assets'; FOLDER = ASSETS/'mini_backbone'
sys.path.insert(0, str(ROOT/'scripts'))

@pytest.fixture(scope='module')
def tok(): return AutoTokenizer.from_pretrained(FOLDER, local_files_only=True)

@pytest.fixture(scope='module')
def model(): return AutoModelForSeq2SeqLM.from_pretrained(FOLDER, dtype=torch.float32, local_files_only=True).eval()

def rows(split):
    for p in sorted((ASSETS/'mini').glob('*.parquet')):
        d = pd.read_parquet(p); yield p.stem, d[d.split == split].to_dict('records')

def test_size_and_papers():
    assert sum(p.stat().st_size for p in FOLDER.iterdir()) <= 40_000_000
    assert 'Apache License' in (FOLDER/'LICENSE').read_text() and 'MiniLM' in (FOLDER/'NOTICE.md').read_text()
    log = json.loads((FOLDER/'training.json').read_text())
    assert all(len(v['sha256']) == 64 for v in log['packages'].values())
    for stage in ('stage1', 'stage2'):
        loss = [l for _, l in log[stage]['curve']]
        assert loss[-1] < loss[0] and len(loss) <= 200

def test_words(tok):
    assert tok.pad_token_id == 0 and tok.unk_token_id not in tok('a b c 1 2 3 , . ! ? " ( ) : ; é')['input_ids']
    for w in 'positive negative yes no true false animal person plant act communication location food good bad 0 1 2 3'.split():
        assert len(tok(w, add_special_tokens=False)['input_ids']) == 1, w
    for t in suite('mini'):
        for c in t.choices(): assert tok.unk_token_id not in tok(c)['input_ids'], c
    for name, r in rows('test'):
        ids = [i for x in r for i in tok(' '.join(str(v) for k, v in x.items() if k not in ('split', 'label')))['input_ids']]
        assert np.mean([i == tok.unk_token_id for i in ids]) < .01, name

def test_no_suite_text_in_the_training_text():
    from build_mini_suite import suite_keys
    got = set(np.load(FOLDER/'pretrain_keys.npz')['keys'].tolist())
    h = lambda k: int.from_bytes(hashlib.sha256(k.encode()).digest()[:8], 'big')
    assert len(got) > 50_000 and h('movequicklyandviolently') in got  # a definition that was trained on: the keys are real
    assert not [k for k in suite_keys(ASSETS/'mini') if h(k) in got]

def test_runs(model, tok):
    x = tok(['movie sentence: a fine film', 'movie sentence: dull and far too long'], padding=True, return_tensors='pt')
    y = model.generate(**x, max_new_tokens=4, do_sample=False, num_beams=1)
    assert y[0, 0] == model.config.decoder_start_token_id and tok.batch_decode(y, skip_special_tokens=True)
    emb = model.get_input_embeddings()(x['input_ids']).detach().requires_grad_(True)
    labels = torch.tensor([tok('positive', add_special_tokens=False)['input_ids'] + [tok.eos_token_id]]*2)
    out = model(inputs_embeds=emb, attention_mask=x['attention_mask'], labels=labels)
    assert torch.allclose(out.logits, model(**x, labels=labels).logits, atol=1e-5)
    out.loss.backward(); assert emb.grad.abs().sum() > 0
    long = torch.ones(1, 300, dtype=torch.long)*50
    assert model(input_ids=long, labels=labels[:1]).logits.isfinite().all()
