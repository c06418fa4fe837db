"""The registry over a real MLflow in SQLite."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.core.errors import RegistryError
from registry.catalog import (
    CHALLENGER,
    CHAMPION,
    EVALUATION,
    PASSPORT,
    PREVIOUS,
    Candidate,
    Catalog,
)

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of SQLAlchemy, about MLflow
]


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'new' / 'mlflow.db'}"


@pytest.fixture(scope="module")
def catalog(uri: str) -> Catalog:
    return Catalog(uri)


def _candidate(root: str = "sha256:1", evidence: str = "sha256:e") -> Candidate:
    return Candidate(
        root=root,
        source_uri=f"file:///store/{root}",
        evidence=evidence,
        metrics={"exact_match": 0.5},
        params={"root": root},
        documents={PASSPORT: {"root": root}, EVALUATION: {"items": [1, 2]}},
    )


def test_the_same_evidence_is_one_version(catalog: Catalog) -> None:
    first = catalog.register("same", _candidate())
    assert (first.number, first.aliases) == (1, (CHALLENGER,))
    assert catalog.register("same", _candidate()) == first
    assert catalog.register("same", _candidate(evidence="sha256:f")).number == 2
    assert catalog.register("same", _candidate(root="sha256:2")).number == 3
    assert [v.number for v in catalog.versions("same")] == [1, 2, 3]


def test_a_team_has_its_own_experiments(uri: str, catalog: Catalog) -> None:
    from mlflow.tracking import MlflowClient

    catalog.register("shared", _candidate())
    Catalog(uri, experiment="team-a").register("owned", _candidate())
    found = {each.name for each in MlflowClient(tracking_uri=uri).search_experiments()}
    assert {"penstock/shared", "team-a/owned"} <= found


def test_aliases_follow_the_promotions(catalog: Catalog) -> None:
    for number in (1, 2):
        catalog.register("moved", _candidate(root=f"sha256:{number}"))
    catalog.promote("moved", 1)
    assert catalog.promote("moved", 1).aliases == (CHAMPION,)
    assert catalog.by_alias("moved", PREVIOUS) is None
    assert catalog.promote("moved", 2).aliases == (CHAMPION,)
    before = catalog.by_alias("moved", PREVIOUS)
    assert before is not None
    assert before.number == 1
    assert catalog.by_alias("moved", CHALLENGER) is None


def test_what_aliases_point_at_is_known_over_all_models(tmp_path: Path) -> None:
    catalog = Catalog(f"sqlite:///{tmp_path}/mlflow.db")
    assert catalog.aliased() == []
    for name in ("b", "a"):
        for number in (1, 2, 3):
            catalog.register(name, _candidate(root=f"sha256:{name}{number}"))
    catalog.promote("a", 1)
    found = [(v.name, v.root, v.aliases) for v in catalog.aliased()]
    assert found == [
        ("a", "sha256:a1", (CHAMPION,)),
        ("a", "sha256:a3", (CHALLENGER,)),
        ("b", "sha256:b3", (CHALLENGER,)),
    ]


def test_a_champion_registered_again_stays_champion(catalog: Catalog) -> None:
    catalog.register("served", _candidate())
    catalog.promote("served", 1)
    assert catalog.register("served", _candidate()).aliases == (CHAMPION,)


def test_documents_are_read_back_and_weights_are_not_copied(catalog: Catalog, uri: str) -> None:
    version = catalog.register("kept", _candidate())
    assert catalog.document(version, PASSPORT) == {"root": "sha256:1"}
    assert catalog.document(version, EVALUATION) == {"items": [1, 2]}
    assert version.source_uri == "file:///store/sha256:1"
    kept = Path(uri.removeprefix("sqlite:///")).parent / "mlartifacts"
    assert {p.name for p in kept.rglob("*") if p.is_file()} == {PASSPORT, EVALUATION}


def test_a_run_that_was_opened_is_joined_and_left_open(
    catalog: Catalog, uri: str, tmp_path: Path
) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    experiment = client.create_experiment("somebody else", tmp_path.as_uri())
    opened = client.create_run(experiment).info.run_id
    version = Catalog(uri, joined_run_id=opened).register("joined", _candidate())
    assert version.run_id == opened
    assert client.get_run(opened).info.status == "RUNNING"
    assert client.get_experiment_by_name("penstock/joined") is None


def test_what_is_not_there(catalog: Catalog) -> None:
    assert catalog.versions("absent") == []
    assert catalog.by_alias("absent", CHAMPION) is None
    with pytest.raises(RegistryError, match="no version 7"):
        catalog.version("absent", 7)


def test_what_mlflow_refuses_is_ours_with_its_reason(catalog: Catalog) -> None:
    with pytest.raises(RegistryError, match="MLflow refused") as problem:
        catalog.register("a/b", _candidate())
    assert problem.value.__cause__ is not None
    with pytest.raises(RegistryError, match="MLflow refused"):
        catalog.promote("absent", 7)
