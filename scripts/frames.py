"""Data frames of the notebooks as tables of the site.

pandas prints two rows of headers, half of them empty, and lines as long as there are columns. Here a table has one row of headers (and
groups above it), words instead of `snake_case`, its `#| tbl-cap` as a caption, and is cut into pieces that fit the page. What the rows
are is the name of the index, or what `#| tbl-rows` says.
"""
import re
from dataclasses import dataclass
from html import escape, unescape
from itertools import groupby
from xml.etree import ElementTree

WIDE = 108    # letters of a line of the table at 1280 px
WORDS = {'GLUE_avg': 'GLUE, mean', 'SG_avg': 'SuperGLUE, mean', 'lr': 'learning rate', 'kl': 'KL', 'nll': 'NLL, nats', 'brier': 'Brier', 'ece': 'ECE',
         'low': '95 % from', 'high': 'to', 'holm': "Holm's p", 'flip': 'sign-flip p', 'excludes_zero': 'without 0', 'constant': 'a constant answer'}
PLAIN = {'NaN': '', 'None': '', 'True': 'yes', 'False': 'no'}


@dataclass
class Table:
    names: list     # of the columns that name the rows
    heads: list     # a list of labels for each row of headers
    rows: list      # of (labels, values); a label is None where the one above goes on


def words(text): return WORDS.get(text, text.replace('_', ' '))


def cells(row):
    "(text, columns, rows) of each cell"
    for c in row: yield unescape(''.join(c.itertext()).strip()), int(c.get('colspan', 1)), int(c.get('rowspan', 1))


def read(html):
    "The table that pandas wrote"
    table = ElementTree.fromstring(re.search(r'<table.*?</table>', html, re.S)[0])
    body = [[*r] for r in table.find('tbody')]
    levels = sum(c.tag == 'th' for c in body[0])
    heads = [[t for t, columns, _ in cells(r) for _ in range(columns)] for r in table.find('thead')]
    named = len(heads) > 1 and not any(heads[-1][levels:])     # a row of its own has the names of the index
    names = heads.pop()[:levels] if named else heads[-1][:levels]
    above = heads[-1][levels - 1] if named else ''             # and the columns' name stands above them
    if above and names[-1] and all(re.match(r'[\d.]+$', h) for h in heads[-1][levels:]): names[-1] += f' \\ {above}'
    rows = []
    for r in body:
        labels = [unescape(''.join(c.itertext()).strip()) for c in r if c.tag == 'th']
        rows.append(([None]*(levels - len(labels)) + labels, [''.join(c.itertext()).strip() for c in r if c.tag == 'td']))
    return Table(names, [h[levels:] for h in heads], rows)


def size(text): return max(map(len, re.split(r'[\s_]', text)), default=0)


def pieces(table):
    "Ranges of columns that fit the page, about equally many each"
    n = len(table.rows[0][1])
    side = sum(max([len(labels[i] or '') for labels, _ in table.rows] + [size(name)]) + 2 for i, name in enumerate(table.names))
    columns = [max([min(len(row[j]), 40) for _, row in table.rows] + [size(h[j]) for h in table.heads]) + 2 for j in range(n)]
    parts = max(1, -(-sum(columns)//max(WIDE - side, max(columns))))
    step = -(-n//parts)
    return [range(i, min(n, i + step)) for i in range(0, n, step)]


def cell(text, tag='td', **attrs):
    said = ''.join(f' {k}="{v}"' for k, v in attrs.items() if v not in ('', 1))
    text = PLAIN.get(text, text)
    kind = ' class="number"' if tag == 'td' and re.match(r'[-+−]?[.\d]', text) else ''
    return f'<{tag}{said}{kind}>{escape(text, quote=False)}</{tag}>'


def header(table, at):
    "Rows of headers: groups above, names below"
    for i, head in enumerate(table.heads):
        last = i == len(table.heads) - 1
        side = '<td></td>'*len(table.names)
        if last: side = ''.join(cell(words(n), 'th', scope='col', **{'class': 'side'}) if n else '<td></td>' for n in table.names)
        runs = [(h, len(list(g))) for h, g in groupby(head[j] for j in at)] if not last else [(head[j], 1) for j in at]
        yield side + ''.join(cell(words(h), 'th', scope='col' if last else 'colgroup', colspan=k) for h, k in runs)


def piece(table, at, caption):
    body = []
    for r, (labels, row) in enumerate(table.rows):
        below = [labels for labels, _ in table.rows[r + 1:]]
        side = ''
        for i, label in enumerate(labels):
            if label is None: continue
            span = next((k for k, b in enumerate(below, 1) if b[i] is not None), len(below) + 1)
            side += cell(label, 'th', scope='row' if span == 1 else 'rowgroup', rowspan=span)
        body.append(side + ''.join(cell(row[j]) for j in at))
    lines = [f'<caption><span>{escape(caption, quote=False)}</span></caption>'*bool(caption),
             '<thead>', *(f'<tr>{h}</tr>' for h in header(table, at)), '</thead>',
             '<tbody>', *(f'<tr>{b}</tr>' for b in body), '</tbody>']
    return '\n'.join(['<table class="table shown">', *lines, '</table>'])


def tidy(html, caption='', rows=''):
    "Of pandas' HTML: the tables to read, below each other"
    table = read(html)
    if rows: table.names = rows.split(', ') if len(table.names) > 1 else [rows]
    return '\n'.join(piece(table, at, caption if not at.start else '') for at in pieces(table))
