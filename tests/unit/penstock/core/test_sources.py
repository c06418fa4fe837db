from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.sources import DataRef

_WORD = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9.-]{0,8}", fullmatch=True)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("data/train.jsonl", "file"),
        ("/data/train.jsonl", "file"),
        ("s3://bucket/a/train.jsonl", "s3"),
        ("pvc://claim/sets/train.jsonl=/mnt/claim", "pvc"),
        ("hf://datasets/acme/rows", "hub"),
        ("hf://datasets/acme/rows@v2/train.jsonl", "hub"),
        ("sql:ROWS_URL:SELECT id, prompt, answer FROM rows ORDER BY id", "sql"),
    ],
)
def test_reads_and_prints(text: str, kind: str) -> None:
    ref = DataRef.parse(text)
    assert (ref.kind, str(ref)) == (kind, text)


@given(_WORD, _WORD, st.one_of(st.just(""), _WORD), st.one_of(st.just(""), _WORD))
def test_prints_what_it_read(org: str, name: str, revision: str, file: str) -> None:
    ref = DataRef("hub", f"{org}/{name}", file, revision)
    assert DataRef.parse(str(ref)) == ref


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("http://host/train.jsonl", "s3://BUCKET/KEY"),
        ("s3://bucket", "s3://BUCKET/KEY"),
        ("hf://acme/rows", "hf://datasets/ORG/NAME"),
        ("pvc://claim/train.jsonl", "pvc://CLAIM/FILE=/FOLDER"),
        ("sql:postgresql://user:secret@host/db:SELECT 1 ORDER BY 1", "VARIABLE in the environment"),
        ("sql:ROWS_URL:DELETE FROM rows ORDER BY id", "nothing is written"),
        ("sql:ROWS_URL:SELECT id FROM rows", "ORDER BY"),
    ],
)
def test_refuses(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        DataRef.parse(text)
