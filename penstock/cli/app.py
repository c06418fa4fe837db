"""Entry point of `penstock`. A command's module is imported when the command is called."""

from __future__ import annotations

import importlib
import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

import penstock
from penstock.core.errors import Interrupted, LifecycleError, SpecError, disk_errors

COMMANDS = {
    "init": ("penstock.cli.init", "Write a model.yaml to start from."),
    "plan": ("penstock.cli.plan", "Say how a model would be served, and whether it fits."),
    "run": ("penstock.cli.run", "Run the lifecycle of a model.yaml on this machine."),
    "submit": ("penstock.cli.submit", "Run the lifecycle of a model.yaml on Kubeflow Pipelines."),
    "runs": ("penstock.cli.runs", "List, show, cancel and retry runs on Kubeflow Pipelines."),
    "pipelines": ("penstock.cli.pipelines", "Publish our pipelines to Kubeflow Pipelines."),
    "schedule": ("penstock.cli.schedule", "Run pipelines by the clock, and by triggers."),
    "status": ("penstock.cli.status", "Show the runs on this machine, or one of them."),
    "hub": ("penstock.cli.hub", "Serve a folder as a mirror of the Hub."),
    "local": ("penstock.cli.local", "Start, stop and show the cluster on this machine."),
    "serve": ("penstock.cli.serve", "Serve a checkpoint folder, without a pipeline."),
    "chat": ("penstock.cli.chat", "Ask a served model."),
    "evaluate": ("penstock.cli.evaluate", "Evaluate a folder or an endpoint."),
    "demo": ("penstock.cli.demo", "Run the whole lifecycle with the example model."),
    "rollout": ("penstock.cli.rollout", "Show, steer and prove how new versions take over."),
    "controller": ("penstock.cli.controller", "Look after rollouts that nobody looks after."),
    "drift": ("penstock.cli.drift", "Say where Git, cluster and registry disagree."),
    "adopt": ("penstock.cli.adopt", "Look after an InferenceService that others created."),
    "leave": ("penstock.cli.leave", "Give a model back, without Penstock's marks."),
    "quantize": ("penstock.cli.quantize", "Make a checkpoint smaller, if nothing is lost."),
    "guard": ("penstock.cli.guard", "Judge whether a checkpoint may replace another."),
    "checkpoint": ("penstock.cli.checkpoint", "Look for what engines would read wrongly."),
    "engine": ("penstock.cli.engine", "Build, list and verify TensorRT-LLM engines."),
    "store": ("penstock.cli.store", "Show the checkpoints here, or remove what nothing needs."),
    "doctor": ("penstock.cli.doctor", "Say what this machine can do, and what is missing."),
    "version": ("penstock.cli.version", "Print the version."),
}


class Commands(click.Group):
    """Knows every command's name and first line without importing it."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's
        """Return the names, in the order a newcomer meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[cmd_name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands from the table."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(penstock.__version__, prog_name="penstock")
def app() -> None:
    """Carry a language model from the Hub to production, and keep it good there.

    Exit codes: 0 done, 1 failed, 2 wrong input, 3 Hub, 4 a gate said no, 5 files, 6 registry,
    7 serving, 8 Kubeflow Pipelines, 130 interrupted.
    """


def main() -> None:
    """Run the CLI; a known error is its message and the next step, not a traceback."""
    try:
        with disk_errors(Path.cwd()):
            app(standalone_mode=False)
    except LifecycleError as problem:
        sys.exit(_tell(problem))
    except click.exceptions.Abort:
        sys.exit(_tell(Interrupted("interrupted", hint="run again: what is done is kept")))
    except click.ClickException as problem:
        problem.show()
        sys.exit(problem.exit_code)


def _wants_json(words: Sequence[str]) -> bool:
    """Whether `--output json` was asked for; the command may not have come to parse it."""
    return "--output=json" in words or ("--output", "json") in itertools.pairwise(words)


def _tell(problem: LifecycleError) -> int:
    if _wants_json(sys.argv[1:]):
        body: dict[str, Any] = {
            "error": type(problem).__name__,
            "message": str(problem),
            "hint": problem.hint,
            "exit_code": problem.exit_code,
        }
        if isinstance(problem, SpecError):
            body["mistakes"] = [
                {"path": m.path, "found": m.found, "allowed": m.allowed, "nearest": m.nearest}
                for m in problem.mistakes
            ]
        click.echo(json.dumps(body, indent=1))
        return problem.exit_code
    click.echo(f"error: {problem}", err=True)
    if problem.hint:
        click.echo(f"next: {problem.hint}", err=True)
    return problem.exit_code
