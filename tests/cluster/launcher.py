"""A compiled pipeline as Jobs: image, command line and executor input of each task are those that
KFP's driver and launcher make of the IR (backend/src/v2, 2.17.0).

What differs, said plainly: there is no Argo, a Job stands for its pod and retries it; and artifacts
lie on the claim, where KFP's launcher would bring them to S3 and back.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pipelines.tasks import CLAIM, HOME
from tests.cluster.served import kubectl
from tests.cluster.stage import Stage
from tests.cluster.waiting import until

Ir = dict[str, Any]

_BUCKET = "minio://mlpipeline/v2/artifacts"
_MOUNTED = "/minio"
"""Where kfp's SDK looks for `minio://`."""

_OUT = "/tmp/kfp_outputs"  # noqa: S108 - the launcher's own choice
_PLACEHOLDER = re.compile(r"{{\$\.inputs\.parameters\['(.+)'\]}}")
_TASK_S = 600.0
_HOME = {"name": "PENSTOCK_HOME", "value": HOME}
"""What the images set; the thin one that stands in here does not."""


@dataclass
class Ended:
    """What came of a task."""

    state: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    artifacts: Mapping[str, Any] = field(default_factory=dict)
    log: str = ""
    lost: int = 0
    """Pods of it that came to no end."""


class Launcher:
    """Runs one pipeline in a stage's namespace.

    Args:
        stage: Whose namespace, and whose claim `CLAIM`.
        folder: Where the claim's files lie on this machine.
        text: The compiled package, both of its documents.
        account: ServiceAccount of the pods.
        on_pod: Called with the names of a task and of its pod, and its phase: once when it has
            a node (Pending) and once when it runs (Running): it may disturb it.
    """

    def __init__(
        self,
        stage: Stage,
        folder: Path,
        text: str,
        account: str,
        on_pod: Callable[[str, str, str], None] = lambda _task, _pod, _phase: None,
    ) -> None:
        self._stage, self._folder, self._account, self._on_pod = stage, folder, account, on_pod
        self._ir, platform = yaml.safe_load_all(text)
        self._pods = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
        self.run_id = str(uuid.uuid4())
        self.ended: dict[str, Ended] = {}

    def run(self, **parameters: Any) -> str:
        """Run to the end; return `SUCCEEDED` or `FAILED`."""
        known = self._ir["root"]["inputDefinitions"]["parameters"]
        given = {name: each.get("defaultValue") for name, each in known.items()} | parameters
        return self._dag("root", self._ir["root"]["dag"], given)

    def _dag(self, name: str, dag: Ir, parameters: Mapping[str, Any]) -> str:
        states: dict[str, str] = {}
        for task, spec in _ordered(dag["tasks"]):
            always = spec.get("triggerPolicy", {}).get("strategy", "") != ""
            if "FAILED" in states.values() and not always:
                continue
            given = self._given(spec, parameters, states)
            component = self._ir["components"][spec["componentRef"]["name"]]
            if "dag" in component:
                states[task] = self._dag(task, component["dag"], given)
            else:
                self.ended[task] = self._task(task, spec, component, given)
                states[task] = self.ended[task].state
        return "FAILED" if "FAILED" in states.values() else "SUCCEEDED"

    def _given(
        self, spec: Ir, parameters: Mapping[str, Any], states: Mapping[str, str]
    ) -> dict[str, Any]:
        """Return a task's parameters."""
        given = {}
        for name, source in spec.get("inputs", {}).get("parameters", {}).items():
            match source:
                case {"componentInputParameter": key}:
                    given[name] = parameters[key]
                case {"taskOutputParameter": from_}:
                    ended = self.ended[from_["producerTask"]]
                    given[name] = ended.parameters[from_["outputParameterKey"]]
                case {"runtimeValue": {"constant": value}}:
                    given[name] = value
                case {"taskFinalStatus": {"producerTask": producer}}:
                    given[name] = {
                        "state": states[producer],
                        "pipelineJobResourceName": self.run_id,
                        "pipelineTaskName": producer,
                        "error": {},
                    }
                case _:
                    raise AssertionError(f"{name}: {source}")
        return given

    def _task(self, task: str, spec: Ir, component: Ir, given: Mapping[str, Any]) -> Ended:
        executor = component["executorLabel"]
        container = self._ir["deploymentSpec"]["executors"][executor]["container"]
        artifacts = {
            name: {"artifacts": [self._artifact(source)]}
            for name, source in spec.get("inputs", {}).get("artifacts", {}).items()
        }
        outputs = component.get("outputDefinitions", {})
        made = {
            name: {
                "artifacts": [
                    {
                        "name": name,
                        "uri": f"{_BUCKET}/{self.run_id}/{task}/{uuid.uuid4()}/{name}",
                        "type": each["artifactType"],
                        "metadata": {},
                    }
                ]
            }
            for name, each in outputs.get("artifacts", {}).items()
        }
        where = {
            name: {"outputFile": f"/tmp/kfp/outputs/{name}"}  # noqa: S108
            for name in outputs.get("parameters", {})
        }
        executor_input = {
            "inputs": {"parameterValues": dict(given), "artifacts": artifacts},
            "outputs": {
                "parameters": where,
                "artifacts": made,
                "outputFile": f"{_OUT}/output_metadata.json",
            },
        }
        name = f"{task}-{self.run_id[:8]}"
        retries = spec.get("retryPolicy", {}).get("maxRetryCount", 0)
        job = self._job(name, container, self._pods[executor], executor_input, int(retries))
        kubectl(self._stage, "apply", "-f", "-", given=[job])
        done, lost = self._watched(task, name)
        told = self._folder / "launched" / name / "output_metadata.json"
        body = json.loads(told.read_text()) if told.exists() else {}
        # of its pods, and not of the job: one that was killed as it ended is gone, and its log too
        log = kubectl(self._stage, "logs", "-l", f"job-name={name}", "--tail=-1") if done else ""
        print(f"{task}: {done}\n{log}")
        artifacts = {**made, **body.get("artifacts", {})}
        return Ended(done, body.get("parameterValues", {}), artifacts, log, lost)

    def _artifact(self, source: Ir) -> Any:
        from_ = source["taskOutputArtifact"]
        artifacts = self.ended[from_["producerTask"]].artifacts
        return artifacts[from_["outputArtifactKey"]]["artifacts"][0]

    def _job(
        self, name: str, container: Ir, pod: Ir, executor_input: Ir, retries: int
    ) -> dict[str, Any]:
        launched = self._folder / "launched" / name
        launched.mkdir(parents=True)
        launched.chmod(0o777)
        told = json.dumps(executor_input)
        told_limit = _PLACEHOLDER.match(limit := container["resources"]["resourceMemoryLimit"])
        given = executor_input["inputs"]["parameterValues"]
        memory = given[told_limit.group(1)] if told_limit else limit
        args = [told if each == "{{$}}" else each for each in container["args"]]
        mounts = [
            {"name": "home", "mountPath": each["mountPath"]} for each in pod.get("pvcMount", ())
        ]
        mounts += [
            {"name": "home", "mountPath": _MOUNTED, "subPath": "minio"},
            {"name": "home", "mountPath": _OUT, "subPath": f"launched/{name}"},
        ]
        return {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": name},
            "spec": {
                "backoffLimit": retries,
                "template": {
                    "metadata": {"labels": {"pipeline/runid": self.run_id}},
                    "spec": {
                        "serviceAccountName": self._account,
                        "restartPolicy": "Never",
                        "runtimeClassName": "penstock-host-python",
                        "activeDeadlineSeconds": int(pod["activeDeadlineSeconds"]),
                        "securityContext": {"runAsUser": 10001, "runAsNonRoot": True},
                        "volumes": [
                            {"name": "home", "persistentVolumeClaim": {"claimName": CLAIM}}
                        ],
                        "containers": [
                            {
                                "name": "main",
                                "image": container["image"],
                                "command": container["command"],
                                "args": args,
                                "env": [_HOME, *container.get("env", ()), *_env(pod)],
                                "volumeMounts": mounts,
                                # little, whatever it asks for: the node is small
                                "resources": {
                                    "requests": {"cpu": "100m", "memory": "256Mi"},
                                    "limits": {"memory": memory},
                                },
                            }
                        ],
                    },
                },
            },
        }

    def _watched(self, task: str, name: str) -> tuple[str, int]:
        """Wait for the end; return the state, and how many pods failed or were lost."""
        seen: list[tuple[str, str]] = []

        def over() -> str:
            words = ("get", "pods", "-l", f"job-name={name}", "-o", "json")
            for pod in json.loads(kubectl(self._stage, *words))["items"]:
                found = (pod["metadata"]["name"], pod["status"]["phase"])
                begun = found[1] in ("Pending", "Running") and "nodeName" in pod["spec"]
                if begun and found not in seen:
                    seen.append(found)
                    self._on_pod(task, *found)
            job = json.loads(kubectl(self._stage, "get", "job", name, "-o", "json"))
            return next(
                (
                    {"Complete": "SUCCEEDED", "Failed": "FAILED"}[each["type"]]
                    for each in job.get("status", {}).get("conditions", ())
                    if each["status"] == "True" and each["type"] in ("Complete", "Failed")
                ),
                "",
            )

        until(f"{task} to end", lambda: bool(over()), _TASK_S)
        job = json.loads(kubectl(self._stage, "get", "job", name, "-o", "json"))
        return over(), int(job["status"].get("failed", 0))


def _ordered(tasks: Mapping[str, Ir]) -> Iterator[tuple[str, Ir]]:
    """Yield tasks after those that they depend on."""
    left, done = dict(tasks), set[str]()
    while left:
        ready = [n for n, t in left.items() if set(t.get("dependentTasks", ())) <= done]
        for name in ready:
            yield name, left.pop(name)
            done.add(name)


def _env(pod: Ir) -> Iterator[dict[str, Any]]:
    """Yield a container's environment, as the driver makes it of the platform's document."""
    for source, key in (("configMapAsEnv", "configMap"), ("secretAsEnv", "secret")):
        for each in pod.get(source, ()):
            for pair in each["keyToEnv"]:
                ref = {"name": each[f"{key}Name"], "key": pair[f"{key}Key"], "optional": True}
                yield {"name": pair["envVar"], "valueFrom": {f"{key}KeyRef": ref}}
    for each in pod.get("fieldPathAsEnv", ()):
        field_ref = {"fieldRef": {"fieldPath": each["fieldPath"]}}
        yield {"name": each["name"], "valueFrom": field_ref}
