"Files are whole or absent, checked, and whose they say"
import errno, json, os, subprocess, sys, threading, time
import pytest, torch
from bayes_prompt.store import Damaged, add_lines, alone, file_fingerprint, fingerprint, load_tensors, read_json, read_lines, read_table, save_tensors, write, write_json

def parts(folder): return [f for f in folder.rglob('*') if f.name.endswith('.part')]

def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    write(tmp_path/'x', b'one')
    def full(*a, **k): raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    for step in ('replace', 'fsync'):
        with monkeypatch.context() as m:
            m.setattr(os, step, full)
            with pytest.raises(OSError, match=r'^could not write .*x: No space left on device; what was there before is untouched$'): write(tmp_path/'x', b'two')
        assert (tmp_path/'x').read_bytes() == b'one' and not parts(tmp_path)

def test_ctrl_c_in_a_write_leaves_no_part(tmp_path, monkeypatch):
    def stop(*a): raise KeyboardInterrupt
    monkeypatch.setattr(os, 'fsync', stop)
    with pytest.raises(KeyboardInterrupt): write(tmp_path/'x', b'one')
    assert not list(tmp_path.iterdir())

def test_a_folder_that_is_gone_is_said(tmp_path):
    for f in (lambda: write(tmp_path/'gone'/'x', ''), lambda: add_lines(tmp_path/'gone'/'x.jsonl', [{}])):
        with pytest.raises(OSError, match='gone is gone'): f()

def test_two_writers_of_one_file_never_mix(tmp_path):
    "Eight threads write the same file; every reader sees one of them whole"
    texts = [str(i)*20_000 for i in range(8)]
    def work(t):
        for _ in range(15): write(tmp_path/'x', t)
    threads = [threading.Thread(target=work, args=(t,)) for t in texts]
    write(tmp_path/'x', texts[0])
    for t in threads: t.start()
    while any(t.is_alive() for t in threads): assert (tmp_path/'x').read_text() in texts
    assert [f.name for f in tmp_path.iterdir()] == ['x']

@pytest.mark.parametrize('text, said', [('', 'is not JSON'), ('{"a": 1', 'is not JSON'), ('['*100_000, 'is not JSON'), ('[]', 'holds a JSON list'), ('null', 'holds a JSON NoneType'), ('\xff', 'is not JSON')])
def test_broken_json(tmp_path, text, said):
    (tmp_path/'x.json').write_bytes(text.encode('latin-1'))
    with pytest.raises(ValueError, match=said) as e: read_json(tmp_path/'x.json', 'record')
    assert 'x.json' in str(e.value) and '\n' not in str(e.value)

def test_json_round_trip_and_byte_order_mark(tmp_path):
    write_json(tmp_path/'x.json', dict(a=[1, .1, 'ü']))
    assert read_json(tmp_path/'x.json') == dict(a=[1, .1, 'ü'])
    (tmp_path/'x.json').write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(tmp_path/'x.json') == dict(a=1)
    with pytest.raises(ValueError, match='^no record '): read_json(tmp_path/'y.json', 'record')

TENSORS = dict(a=torch.arange(6.).view(2, 3), b=torch.tensor(3), c=torch.ones(2, dtype=torch.bfloat16), d=torch.zeros(0, 4))

def test_tensors_round_trip(tmp_path):
    save_tensors(tmp_path/'x', TENSORS | dict(t=TENSORS['a'].T), dict(n=[1, None]), 'k')
    tensors, about = load_tensors(tmp_path/'x', 'k')
    assert about == dict(n=[1, None]) and torch.equal(tensors.pop('t'), TENSORS['a'].T)
    assert all(torch.equal(v, TENSORS[k]) and v.dtype == TENSORS[k].dtype for k, v in tensors.items())

def test_headers_of_all_lengths_are_no_pickles(tmp_path):
    "The length of the header stands first, and may begin like a pickle"
    for n in range(0, 1200, 8):
        save_tensors(tmp_path/'x', dict(a=torch.ones(1)), dict(text='x'*n))
        assert load_tensors(tmp_path/'x')[1] == dict(text='x'*n)

def test_a_pickle_is_refused_unread(tmp_path):
    torch.save(dict(a=torch.ones(2)), tmp_path/'x.pt')
    torch.save(dict(a=torch.ones(2)), tmp_path/'y.pt', _use_new_zipfile_serialization=False)
    for f in ('x.pt', 'y.pt'):
        with pytest.raises(ValueError, match='pickle'): load_tensors(tmp_path/f)

def test_every_cut_and_flip_is_noticed(tmp_path):
    save_tensors(tmp_path/'x', dict(a=torch.arange(4.)), dict(task='movie'), 'k')
    whole = (tmp_path/'x').read_bytes()
    for n in range(len(whole)):
        (tmp_path/'y').write_bytes(whole[:n])
        with pytest.raises(Damaged): load_tensors(tmp_path/'y')
    for bit in range(8*len(whole)):
        (tmp_path/'y').write_bytes(bytes(b ^ (1 << bit % 8)*(i == bit//8) for i, b in enumerate(whole)))
        try: tensors, about = load_tensors(tmp_path/'y', 'k')
        except ValueError: continue
        assert torch.equal(tensors['a'], torch.arange(4.)) and about == dict(task='movie')

def test_keys_and_what_cannot_be_kept(tmp_path):
    save_tensors(tmp_path/'x', {}, key='k')
    with pytest.raises(ValueError, match="expected the key 'j', got 'k'") as e: load_tensors(tmp_path/'x', 'j', 'checkpoint')
    assert not isinstance(e.value, Damaged)
    with pytest.raises(ValueError, match='which JSON can hold'): save_tensors(tmp_path/'x', {}, dict(a=torch.ones(1)))

def test_lines(tmp_path):
    f = tmp_path/'h.jsonl'
    end = add_lines(f, [dict(i=0), dict(i=1)])
    add_lines(f, [dict(i=99)], end)
    f.open('a').write('{"i": 1')   # a kill in the middle of a line
    end = add_lines(f, [dict(i=2)], end)
    assert read_lines(f, end) == [dict(i=0), dict(i=1), dict(i=2)] and read_lines(f, (0, 0)) == []
    f.write_bytes(f.read_bytes()[:-3])
    with pytest.raises(Damaged, match='cut off'): read_lines(f, end)
    with pytest.raises(Damaged): read_lines(tmp_path/"no.jsonl", (5, 0))

def test_fingerprints():
    def f(): pass
    x = torch.randn(3)
    assert fingerprint(x) == fingerprint(x.clone()) != fingerprint(x + 1) and fingerprint(dict(a=1, b=x)) == fingerprint(dict(b=x, a=1))
    assert fingerprint(f) == fingerprint(f) and fingerprint(torch.zeros(2, 3)) != fingerprint(torch.zeros(3, 2))
    assert fingerprint('a', 'b') != fingerprint('ab')

def test_file_fingerprint_sees_a_change(tmp_path):
    f = tmp_path/'x'
    f.write_text('one')
    a = file_fingerprint(f)
    assert a == file_fingerprint(f)
    f.write_text('two')
    os.utime(f, ns=(1, 1))
    assert a != file_fingerprint(f)

def test_a_second_process_waits(tmp_path):
    code = f"from bayes_prompt.store import alone\nwith alone({str(tmp_path)!r}, 'the stage'): print('in', flush=True)"
    with alone(tmp_path, 'a test'):
        p = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        line = p.stderr.readline()
        assert 'waiting: another process is at the stage' in line and p.poll() is None
    assert p.communicate(timeout=30)[0] == 'in\n'

def test_a_flipped_bit_of_a_history_is_noticed(tmp_path):
    f = tmp_path/'h.jsonl'
    mark = add_lines(f, [dict(loss=1.25)], add_lines(f, [dict(loss=2.5)]))
    whole = f.read_bytes()
    for bit in range(8*len(whole)):
        flipped = bytearray(whole)
        flipped[bit//8] ^= 1 << bit % 8
        f.write_bytes(flipped)
        with pytest.raises(Damaged, match='checksum'): read_lines(f, mark)

@pytest.mark.parametrize('name, text, said', [
    ('a.toml', 'x = ', 'is not TOML'), ('a.json', '{', 'is not JSON'), ('a.json', '[]', 'holds a JSON list'), ('a.json', '{"a":'*260 + '1' + '}'*260, '250 deep'),
    ('a.json', '['*260 + ']'*260, '250 deep'), ('a.json', '['*10**5, 'JSON'), ('a.toml', 'x = ' + '['*260 + ']'*260, '250 deep')])
def test_tables(tmp_path, name, text, said):
    (tmp_path/name).write_text(text)
    with pytest.raises(ValueError, match=f'the thing .*{said}'): read_table(tmp_path/name, 'thing')

def test_a_device_is_no_file():
    for f in (read_json, read_table, load_tensors):
        with pytest.raises(ValueError, match='no file'): f('/dev/null')

def test_fingerprints_see_every_number():
    x = torch.zeros(2000)
    y = x.clone()
    y[777] = 1e-9
    assert fingerprint([x]) != fingerprint([y]) and fingerprint(x.double()) != fingerprint(x.double() + 1e-12)
    assert fingerprint(lambda a: a) != fingerprint(lambda a: a + 1)

@pytest.mark.parametrize('text', ['{"lr": 0.1, "b": {"c": 1, "c": 2}}', '{"c" :1,"c":2}', '{"c"\n:1,"c" : 2, "d": [{"e": 3}]}', '{"x": "\\":", "c":1,"c":2}', '{"x": "\\u003a", "c":1,"c":2}', '{"x": "\\u003A", "c":1,"c":2}', f'{{"x": {10**20}, "c":1,"c":2}}'])
def test_two_values_under_one_key_are_refused(tmp_path, text):
    (tmp_path/'a.json').write_text(text)
    with pytest.raises(ValueError, match="two values for the key 'c'"): read_json(tmp_path/'a.json')

def test_texts_that_look_like_keys(tmp_path):
    (tmp_path/'a.json').write_text('{"x": "\\": 1", "y": ["\\"  :"]}')
    assert read_json(tmp_path/'a.json') == dict(x='": 1', y=['"  :'])
    (tmp_path/'a.json').write_text('{"\\u003ax": "a:\\u003A"}')
    assert read_json(tmp_path/'a.json') == {':x': 'a::'}

@pytest.mark.parametrize('text', [
    '1e999', '-1e999', 'NaN', '[-Infinity]', '5e-324', '1e-400', '0.1', '-0.0', '-0', '1E5', '0.00012345678901234567', '1.2345678901234567e-05', '\ufeff{"a": 1}', '"\\ud800"', '"\\u0000"',
    *map(str, (2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**30, -2**63, -2**63 - 1, -10**19, -9999999999999999999)), f'[0.{"1"*40}, {10**20}]', f'[{10**20}.5]'])
def test_json_is_read_as_python_reads_it(tmp_path, text):
    "To the bit and the type, though another parser reads most of it"
    (tmp_path/'x.json').write_bytes(f'{{"a": [{text.removeprefix(chr(65279))}]}}'.encode())
    if text[0] == '\ufeff': (tmp_path/'x.json').write_bytes(text.encode())
    expected = json.loads((tmp_path/'x.json').read_bytes().decode('utf-8-sig'))
    assert repr(read_json(tmp_path/'x.json')) == repr(expected)
