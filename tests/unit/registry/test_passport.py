from __future__ import annotations

from pathlib import Path

from registry.passport import Decision, Made, Passport, schema_text


def test_the_schema_is_the_one_checked_in() -> None:
    assert Path("docs/reference/passport.schema.json").read_text() == schema_text()


def test_a_passport_comes_back_as_it_went_out() -> None:
    passport = Passport(
        name="m",
        source="hf://a/b@" + "0" * 40,
        root="sha256:" + "0" * 64,
        files={"config.json": "sha256:" + "1" * 64},
        licence="mit",
        data={},
        evaluation={"exact_match": {"share": 1.0}},
        decisions=[Decision(step="scan pickle", outcome="passed", reason="no pickles")],
        made=Made(penstock="0", at="2026-01-01T00:00:00+00:00", run_id="r"),
    )
    assert Passport.model_validate_json(passport.model_dump_json()) == passport
