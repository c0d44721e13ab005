"""Bring records from before configurations had groups to today's form and names.

    python scripts/migrate_records.py results/demo [FOLDER ...]

A record keeps every value. Its configuration is written in groups; it says which data and weights it belongs to,
and what it was called before (`migrated`). The fingerprints are those of today's files: migrate only where data and
weights are still the ones that the runs had. Nothing in a folder is changed where something is wrong, and a second
call changes nothing. Records of `run` are renamed alone, where names are made otherwise today. Where a record is older than the key `lr_weights`, `lr` was the rate of whatever was trained, so
a method that trains weights is given that rate under the newer name.

The 281 records of this repository were migrated by this script. `git log` of `bayes_prompt/assets/mini` and `mini_backbone` says that
the data has not changed since db00a7d and the backbone not since f9c6c5f, and every record was committed later. Of 24
that were made at db00a7d, when the backbone lay there uncommitted, git cannot tell; two of these were run again, and
gave the same losses and scores to the last digit. `tests/test_golden.py` runs three others again.
"""
import sys
from pathlib import Path

from bayes_prompt.config import as_record, make_config, record_name
from bayes_prompt.options import choose, methods
from bayes_prompt.protocol import data_fingerprint, weights_fingerprint
from bayes_prompt.store import read_json, write_json


def configuration(old):
    "Today's configuration of a record, flat or in groups"
    trains_weights = choose(old.get('method'), methods(), 'method').trains == 'weights'
    before = 'lr' in old and 'lr_weights' not in old
    return make_config(old | (dict(lr_weights=old['lr']) if before and trains_weights else {}))


def migrated(path, record):
    "A record in today's form, and its name"
    if not is_old(record): return record_name(make_config(record['config']), record['data'], record['weights']), record
    config = configuration(record['config'])
    weights = weights_fingerprint(config.compute.backbone)
    if not weights: raise ValueError(f'{path}: the weights of {config.compute.backbone!r} are not on this machine')
    belongs = dict(data=data_fingerprint(config, config.tasks), weights=weights)
    before = record.get('migrated', {'from': path.stem})
    new = record | dict(config=as_record(config)) | belongs | dict(migrated=before)
    return record_name(config, **belongs), new


def is_old(record):
    "Is it one whose content this script changes? Records of `run` say what they belong to by themselves, and are renamed alone"
    return 'migrated' in record or 'data' not in record


def migrate(folder):
    "Migrate the records of a folder; the line that says what was done"
    records = {f: read_json(f, 'record') for f in sorted(Path(folder).glob('*.json'))}
    old = {f: r for f, r in records.items() if {'config', 'scores'} <= r.keys()}
    new = {f: migrated(f, r) for f, r in old.items()}
    kept = {f.stem for f in records if f not in old}
    named = {}
    for name, record in new.values():
        if name in kept or named.setdefault(name, record) != record:
            raise ValueError(f'{folder}: two records would be called {name}, so nothing was changed: move one away')
    changed = {f: to for f, to in new.items() if to != (f.stem, old[f])}
    for f, (name, record) in changed.items():
        write_json(f.with_name(f'{name}.json'), record)
        if f.stem != name: f.unlink()
    return f'{folder}: {len(old)} records, {len(changed)} changed; {len(kept)} other files left as they are'


if __name__ == '__main__':
    if not sys.argv[1:]: sys.exit(__doc__)
    try:
        for folder in sys.argv[1:]: print(migrate(folder))
    except (ValueError, OSError) as e:
        sys.exit(f'error: {e}')
