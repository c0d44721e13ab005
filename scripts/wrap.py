"Shown code in at most 88 columns: long lines are broken inside brackets, long comments stand above their line. What the code means stays."
import ast, io, tokenize
from itertools import takewhile

WIDTH = 88
WORDS = {'for', 'if', 'else', 'and', 'or'}
SIGNS = {'+', '|', '-'}
BLOCKS = {'for', 'with', 'if', 'elif', 'else', 'def', 'try', 'except', 'while'}
FSTRING = [getattr(tokenize, f'FSTRING_{end}', -1) for end in ('START', 'END')]    # Python 3.12 looks into them


def tokens(source, row):
    "(token, brackets around it as the columns behind them) of a row"
    stack, inside = [], 0
    for t in tokenize.generate_tokens(io.StringIO(source).readline):
        if t.string in (')', ']', '}') and not inside: stack.pop()
        if t.start[0] == row and not inside: yield t, tuple(stack)
        if t.string in ('(', '[', '{') and not inside: stack.append(t.start[1] + 1)
        inside += (t.type == FSTRING[0]) - (t.type == FSTRING[1])


def breaks(found, indent):
    "Where a row can be broken, the best first: (column, indentation of what follows)"
    can, before, target = [], None, False    # between `for` and `in` stand names
    same = found[0][1]                       # where the row itself goes on in a bracket, so does the next
    for t, stack in found:
        col = t.start[1]
        comma = before == ',' and not target
        word = t.type == tokenize.NAME and t.string in WORDS
        sign = t.type == tokenize.OP and t.string in SIGNS and before not in ('(', '[', ',', '=', '*')
        fits = stack and indent + 24 < col <= WIDTH and stack[-1] < min(col, 64) and t.string not in ')]}'
        to = indent if stack and stack == same else stack[-1] if stack else 0
        if fits and (comma or word or sign): can.append((len(stack), not (comma or t.string == 'for'), -col, to))
        target = t.string == 'for' or target and t.string != 'in'
        before = t.string
    return [(-col, to) for _, _, col, to in sorted(can)]


def alternatives(source):
    "The source with its first long row broken, in every way that there is, the best first"
    lines = source.split('\n')
    for i, line in enumerate(lines):
        if len(line) <= WIDTH or line.lstrip().startswith('#'): continue
        indent = len(line) - len(line.lstrip())
        found = [(t, s) for t, s in tokens(source, i + 1) if t.string.strip()]
        def broken(at, to): return '\n'.join(lines[:i] + [line[:at].rstrip(), ' '*to + line[at:].lstrip()] + lines[i + 1:])
        if not found: continue    # inside a text of many lines
        if len(found) > 1 and found[-1][0].type == tokenize.COMMENT:
            at = found[-1][0].start[1]
            yield '\n'.join(lines[:i] + [' '*indent + line[at:], line[:at].rstrip()] + lines[i + 1:])
        if found[0][0].string in BLOCKS:
            head = [*takewhile(lambda f: f[0].string != ':' or f[1], found)]
            if len(head) < len(found) - 1: yield broken(found[len(head)][0].end[1], indent + 4)
        for at, to in breaks(found, indent): yield broken(at, to)


def wrapped(source):
    "The same code in narrower lines"
    try: meaning = ast.dump(ast.parse(source))
    except SyntaxError: return source
    def same(other):
        try: return ast.dump(ast.parse(other)) == meaning
        except SyntaxError: return False
    for _ in range(200):
        if not (new := next(filter(same, alternatives(source)), None)): return source
        source = new
    return source
