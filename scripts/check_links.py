"""Fail when a page of a built site links to a page, file or anchor that is not there."""
import re, sys
from html import unescape
from pathlib import Path
from urllib.parse import unquote, urldefrag


def broken(root):
    "Messages, one for each dead link"
    pages = {p.resolve(): p.read_text(encoding='utf-8') for p in Path(root).rglob('*.html')}
    if not pages: return [f'no pages in {root}']
    ids, bad = {p: set(re.findall(r'\bid="([^"]+)"', t)) for p, t in pages.items()}, []
    for p, html in pages.items():
        for ref in dict.fromkeys(map(unescape, re.findall(r'\b(?:href|src)="([^"]+)"', html))):
            if re.match(r'[a-z]+:|//', ref): continue
            url, frag = map(unquote, urldefrag(ref))
            to = (p.parent/url.partition('?')[0]).resolve() if url else p
            if not to.exists(): bad.append(f'{p.name}: {ref}')
            elif frag and to in pages and frag not in ids[to]: bad.append(f'{p.name}: {ref} (no such anchor)')
    return bad


if __name__ == '__main__':
    bad = broken(sys.argv[1])
    print('\n'.join(bad) or 'links ok')
    sys.exit(bool(bad))
