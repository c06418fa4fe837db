"""A team: its namespace, what serves there, and who its account and its people are."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.installing import kubectl
from tests.cluster.served import answers
from tests.cluster.stage import PATIENT, Stage
from tests.cluster.waiting import until

SECRET = "penstock-storage"
_OWN_REVIEWS = {"authorization.k8s.io", "authentication.k8s.io"}
"""Everybody may ask who he is and what he may do."""


@dataclass(frozen=True)
class Team:
    """A team's namespace, what serves there, and its pipelines' account."""

    stage: Stage
    folder: Path
    """Of its kustomization and values."""

    account: dict[str, str]
    """The environment in which kubectl is its ServiceAccount."""

    @property
    def name(self) -> str:
        """Of the namespace, and of the group of its people."""
        return self.stage.namespace

    @property
    def person(self) -> list[str]:
        """What makes kubectl one of its people."""
        return ["--as=somebody", f"--as-group={self.name}"]

    def reviewed(self, where: str, *words: str) -> list[Any]:
        """Return what it may do in a namespace: its account, or whoever the words make it."""
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectRulesReview",
            "spec": {"namespace": where},
        }
        env = None if words else self.account
        asked = ("create", "--validate=false", "-f", "-", "-o", "json")  # who validates lists CRDs
        told = kubectl(*words, *asked, given=review, env=env)
        rules: list[Any] = json.loads(told)["status"]["resourceRules"]
        return [each for each in rules if not _OWN_REVIEWS & {*each["apiGroups"]}]


def account(folder: Path, name: str) -> dict[str, str]:
    """Return the environment in which kubectl is a team's ServiceAccount."""
    token = kubectl("-n", name, "create", "token", "penstock-runner", "--duration=2h").strip()
    found = json.loads(kubectl("config", "view", "--raw", "--flatten", "-o", "json"))
    found["users"] = [{"name": each["name"], "user": {"token": token}} for each in found["users"]]
    path = folder / "kubeconfig"
    path.write_text(json.dumps(found))
    return {"KUBECONFIG": str(path)}


def serving(folder: Path, name: str) -> Team:
    """Have a team that was installed serve its first version."""
    kubectl("-n", name, "create", "secret", "generic", SECRET, "--from-literal=HF_TOKEN=hf_x")
    kubectl("-n", name, "rollout", "status", "deployment/penstock-controller", "--timeout=240s")
    place = folder / "stage"
    place.mkdir()
    stage = Stage(name, place, policy=PATIENT, cpu="400m")
    stage.prepare(runtime=False)
    stage.deploy(1)
    until("an answer through the gateway", lambda: answers(stage), 240)
    return Team(stage, folder, account(folder, name))
