"""`penstock engine gc`: what is served, or belongs to what the registry points at, stays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from components.trtllm.build import Parent, facts_in, produce, work_folder
from components.trtllm.builder import in_environment
from components.trtllm.cache import EngineCache, Entry
from components.trtllm.key import key_of
from components.trtllm.plan import Places, plan
from penstock.cli.app import app
from penstock.core.identity import Digest, ModelRef
from registry.catalog import EVALUATION, PASSPORT, Candidate, Catalog
from registry.store import manifest_of
from serving.local.objects import SqliteCluster
from serving.manifests import ROOT
from tests.unit.components.trtllm import cases

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of SQLAlchemy, about MLflow
]


class Home:
    """A home folder with engines that need no program to be built."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = root / "home"
        self.env = {"PENSTOCK_HOME": str(self.home)}
        self.cache = EngineCache(self.home / "engines")

    def add(self, name: str, *, outcome: str = "") -> Entry:
        """Keep the build of a checkpoint of its own, judged if an outcome is given."""
        folder = cases.parent(self.root / name)
        (folder / "model.safetensors").write_bytes(name.encode() * 100)
        source = ModelRef.parse(f"hf://acme/{name}@main")
        build = cases.build(strategy="checkpoint", recipe=None, model=facts_in(folder))
        key = key_of(build, manifest_of(folder, source).root, None)
        places = Places(cases.PLACES.source, cases.PLACES.work / work_folder(self.cache, key))
        entry = produce(
            self.cache,
            key,
            plan(build, places),
            Parent(folder, source),
            run=in_environment({}),
            tell=print,
        )
        if outcome:
            entry.judged({"outcome": outcome, "reason": "so it is"})
        return entry

    def register(self, entry: Entry) -> None:
        """Let an alias of the registry point at the checkpoint that something was built from."""
        root = str(entry.key.weights)
        documents: dict[str, Any] = {PASSPORT: {"root": root}, EVALUATION: {"items": [1]}}
        name = entry.manifest.source.path.partition("/")[2]
        Catalog(f"sqlite:///{self.home}/mlflow.db").register(
            name,
            Candidate(
                root=root,
                source_uri="file:///x",
                evidence="sha256:e",
                metrics={},
                params={},
                documents=documents,
            ),
        )

    def serve(self, entry: Entry) -> None:
        """Write a service of this machine that serves it."""
        service = {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {"name": "x-v1", "annotations": {ROOT: str(Digest.of(b"elsewhere"))}},
            "spec": {"predictor": {"model": {"storageUri": entry.files.as_uri()}}},
        }
        SqliteCluster(self.home / "cluster" / "cluster.db").create(service)

    def gc(self, *words: str) -> dict[str, Any]:
        result = CliRunner(env=self.env).invoke(app, ["engine", "gc", *words, "--output", "json"])
        assert result.exception is None, result.output
        found: dict[str, Any] = json.loads(result.output)
        return found


def test_what_is_served_or_belongs_to_what_the_registry_points_at_stays(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert home.gc("--unused-for", "0") == {"removed": [], "freed_bytes": 0, "dry_run": False}
    served, good = home.add("served"), home.add("good", outcome="accept")
    bad, loose = home.add("bad", outcome="refuse"), home.add("loose", outcome="accept")
    new = home.add("new")
    home.serve(served)
    for entry in (good, bad, new):
        home.register(entry)
    assert home.gc()["removed"] == [], "they are recent"
    assert not (home.home / "mlruns").exists()

    removed = sorted(str(entry.key.digest) for entry in (bad, loose))
    told = home.gc("--unused-for", "0", "--dry-run")
    assert (sorted(told["removed"]), told["freed_bytes"], told["dry_run"]) == (removed, 0, True)
    assert len(home.cache.digests()) == 5
    text = CliRunner(env=home.env).invoke(app, ["engine", "gc", "--unused-for", "0", "--dry-run"])
    assert text.output.splitlines()[-1] == "would remove 2 engines"

    told = home.gc("--unused-for", "0")
    assert sorted(told["removed"]) == removed
    assert told["freed_bytes"] > bad.manifest.size_bytes + loose.manifest.size_bytes
    assert set(home.cache.digests()) == {each.key.digest for each in (served, good, new)}
    for entry in (served, good, new):
        entry.verify()
