"""The components as tasks, with what their pods need on a cluster; `pipelines.local` needs none.

A pod finds the team's settings and keys in its namespace (docs/how-to/kubeflow.md), and one claim
that every task shares: the store of checkpoints and the records of runs.
"""

from collections.abc import Callable
from typing import Any

from kfp import kubernetes

from components.build_engine import build_engine as _build_engine
from components.build_engine import judge_engine as _judge_engine
from components.build_engine import plan_engine as _plan_engine
from components.build_engine import resolve_engine as _resolve_engine
from components.check_data import check_data as _check_data
from components.conclude import conclude as _conclude
from components.deploy import deploy as _deploy
from components.detect_changes import detect_changes as _detect_changes
from components.evaluate import evaluate as _evaluate
from components.find_checkpoint import find_checkpoint as _find_checkpoint
from components.go_back import go_back as _go_back
from components.pull import pull as _pull
from components.quantize import quantize as _quantize
from components.register import register as _register
from components.resolve import resolve as _resolve
from components.rollout import rollout as _rollout
from components.scan import scan as _scan
from components.train import train as _train
from penstock.core.tasks import MOST_RETRIES

CLAIM = "penstock-home"
"""PersistentVolumeClaim of all tasks of a namespace."""

HOME = "/var/lib/penstock"
"""Where it is mounted: PENSTOCK_HOME of the images. Not a variable of the task: kfp.local would set
it here, too."""

SETTINGS = "penstock-settings"
"""ConfigMap with environment variables; a task starts without it."""

SECRETS = "penstock-secrets"
"""Secret with environment variables; a task starts without it."""

SETTING_KEYS = (
    *("HF_ENDPOINT", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"),
    *("AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION", "PENSTOCK_STORAGE_SECRET"),
)
SECRET_KEYS = (
    *("HF_TOKEN", "MLFLOW_TRACKING_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
    "PENSTOCK_DATA_URL",
)

_MINUTE = 60
_HOUR = 60 * _MINUTE
_DAY = 24 * _HOUR

Task = Callable[..., Any]


def _task(component: Task, memory: str, *, timeout_s: int = _HOUR) -> Task:
    """Return what makes a task of a component.

    Args:
        component: Its shell.
        memory: Request and limit of its pod.
        timeout_s: How long a pod may take; a retry has as long again.
    """

    def task(**arguments: Any) -> Any:
        made = component(**arguments)
        kubernetes.mount_pvc(made, CLAIM, HOME)
        kubernetes.use_config_map_as_env(made, SETTINGS, {k: k for k in SETTING_KEYS}, True)
        kubernetes.use_secret_as_env(made, SECRETS, {k: k for k in SECRET_KEYS}, True)
        # one record for all tasks of a run
        kubernetes.use_field_path_as_env(
            made, "PENSTOCK_RUN_ID", "metadata.labels['pipeline/runid']"
        )
        kubernetes.set_timeout(made, timeout_s)
        made.set_retry(MOST_RETRIES, backoff_duration="10s", backoff_max_duration="300s")
        made.set_cpu_request("500m").set_memory_request(memory).set_memory_limit(memory)
        return made

    return task


def sized(task: Any, pulled: Any, *, trains: bool = False) -> None:
    """Give the pod of a task that loads the checkpoint what the checkpoint's size demands."""
    memory = pulled.outputs["memory"]
    task.set_memory_request(memory).set_memory_limit(memory)
    task.after(pulled)  # a resource that comes from a task makes no dependency
    if trains:
        task.set_accelerator_type(pulled.outputs["device"])
        task.set_accelerator_limit(pulled.outputs["devices"])
        kubernetes.add_toleration_json(task, pulled.outputs["toleration"])


resolve = _task(_resolve, "1Gi", timeout_s=10 * _MINUTE)
pull = _task(_pull, "2Gi", timeout_s=_DAY)
scan = _task(_scan, "2Gi", timeout_s=4 * _HOUR)
check_data = _task(_check_data, "4Gi")
quantize = _task(_quantize, "4Gi", timeout_s=_DAY)
train = _task(_train, "4Gi", timeout_s=7 * _DAY)
evaluate = _task(_evaluate, "4Gi", timeout_s=_DAY)
register = _task(_register, "1Gi", timeout_s=10 * _MINUTE)
deploy = _task(_deploy, "2Gi", timeout_s=_DAY)
rollout = _task(_rollout, "2Gi", timeout_s=7 * _DAY)
conclude = _task(_conclude, "1Gi")
detect_changes = _task(_detect_changes, "2Gi")
find_checkpoint = _task(_find_checkpoint, "2Gi", timeout_s=_DAY)
go_back = _task(_go_back, "1Gi")
resolve_engine = _task(_resolve_engine, "1Gi", timeout_s=10 * _MINUTE)
plan_engine = _task(_plan_engine, "2Gi", timeout_s=10 * _MINUTE)
build_engine = _task(_build_engine, "16Gi", timeout_s=_DAY)
judge_engine = _task(_judge_engine, "16Gi", timeout_s=_DAY)
