"""`penstock engine`."""

from __future__ import annotations

import json
import shlex
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import click

from components.trtllm.documented import CUDA, ENGINE_IMAGE
from penstock.cli.edge import environment, output_option, print_json, settings_of
from penstock.cli.engine_gc import command as gc
from penstock.cli.engine_run import command as run
from penstock.cli.engine_view import cache_of, row, rows_of, tell_plan, verdict_of
from penstock.core.errors import ConfigurationError

if TYPE_CHECKING:
    from components.trtllm.key import BuildKey, Node, Runtime
    from components.trtllm.model import Build, ModelFacts
    from components.trtllm.plan import Places
    from penstock.core.recipes import Recipe

_image = click.option(
    "--image",
    default=ENGINE_IMAGE,
    show_default=True,
    help="TensorRT-LLM image it is for, exact tag.",
)
_driver = click.option("--driver", type=int, metavar="MAJOR", help="Driver of the node: 580.")
_cuda = click.option("--cuda", type=int, default=CUDA, show_default=True, help="CUDA in the image.")


@click.group()
def command() -> None:
    """Build TensorRT-LLM engines and checkpoints, judge, show, verify and remove them."""


command.add_command(gc)
command.add_command(run)


@command.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--strategy",
    type=click.Choice(["checkpoint", "engine"]),
    default="checkpoint",
    show_default=True,
    help="Export for `trtllm-serve FOLDER`, or build with trtllm-build (images up to 1.2).",
)
@click.option(
    "--precision",
    default="bf16",
    show_default=True,
    metavar="NAME|JSON",
    help="As in model.yaml: modelopt-fp8, or a recipe document; bf16: the weights as they came.",
)
@click.option(
    "--calibrate", default="cnn_dailymail", show_default=True, help="Data set: name, or folder."
)
@click.option("--gpu", required=True, help="What it shall run on: H100, nvidia-l40s, …")
@click.option("--tp", default=1, show_default=True, help="Tensor parallelism.")
@click.option("--pp", default=1, show_default=True, help="Pipeline parallelism.")
@click.option("--max-batch", default=64, show_default=True, help="Requests at once.")
@click.option("--max-input", default=3072, show_default=True, help="Tokens of a prompt.")
@click.option("--max-seq", default=4096, show_default=True, help="Tokens of prompt and answer.")
@click.option("--max-num-tokens", default=8192, show_default=True, help="Tokens of one step.")
@click.option("--max-beam", default=1, show_default=True, help="Beams of a request.")
@_image
@_driver
@_cuda
@click.option("--source", help="Where the checkpoint came from, as hf://ORG/NAME@REVISION.")
@click.option("--python", default="/usr/bin/python3", show_default=True, help="That has modelopt.")
@click.option("--examples", default="/app/tensorrt_llm/examples", show_default=True)
@click.option("--dry-run", is_flag=True, help="Print commands and files; run and write nothing.")
@output_option
def build(folder: Path, dry_run: bool, output: str, **options: Any) -> None:
    """Build what TensorRT-LLM serves, from a checkpoint's folder; what is built already is found.

    Run it where it can run: in the build image, on the GPU it is for. With --dry-run, anywhere.
    """
    from components.trtllm.build import Parent, facts_in, produce, work_folder
    from components.trtllm.builder import in_environment, refuse_absent
    from components.trtllm.key import key_of
    from components.trtllm.plan import plan
    from penstock.core.identity import ModelRef
    from registry.store import manifest_of

    wanted = _wanted(facts_in(folder), options)
    source = ModelRef.parse(options["source"] or f"file://{folder.absolute()}")
    cache, env = cache_of(settings_of()), environment()
    if dry_run:
        places = _places(folder, options, PurePosixPath(cache.root, ".work", "KEY"))
        tell_plan(plan(wanted, places), output)
        return
    refuse_absent(
        plan(wanted, _places(folder, options, PurePosixPath("."))), env, image=str(wanted.image)
    )
    node = _node(wanted, options, env)
    key = key_of(wanted, manifest_of(folder, source).root, node)
    made = plan(wanted, _places(folder, options, PurePosixPath(work_folder(cache, key))))
    entry = produce(
        cache,
        key,
        made,
        Parent(folder, source),
        run=in_environment(env),
        tell=lambda line: click.echo(line, err=True),
    )
    if output == "json":
        print_json(row(entry) | {"folder": entry.files, "serve": list(made.serve)})
        return
    click.echo(f"{key.digest.short}  {entry.files}")
    click.echo(f"  {verdict_of(entry)}")
    click.echo(f"  served by: {shlex.join(made.serve)}")


@command.command("list")
@output_option
def list_(output: str) -> None:
    """Show what was built, for which GPU, how large and how old it is, and what is unfinished."""
    rows = rows_of(cache_of(settings_of()))
    if output == "json":
        print_json({"engines": rows})
        return
    for each in rows:
        size, age = each["size_bytes"] / 1e6, each["age_s"] / 3600
        click.echo(f"{each['key'][7:19]}  {size:10.1f} MB  {age:7.1f} h  {each['state']}")
        if each["model"]:
            click.echo(f"              {each['verdict']}")
            click.echo(f"              {each['model']}: {each['strategy']}, {each['scheme']}")
            click.echo(f"              {each['gpu']}, {each['image']}")
    if not rows:
        click.echo("nothing built yet; next: penstock engine build FOLDER --gpu H100 --dry-run")


@command.command()
@click.argument("what", metavar="KEY|DIR")
@click.option("--gpu", help="GPU it shall run on; without it only the files are verified.")
@_image
@_driver
@_cuda
@output_option
def verify(what: str, gpu: str | None, output: str, **options: Any) -> None:
    """Verify the digest of every file, and with --gpu that it would run there."""
    from components.trtllm.cache import read_entry
    from components.trtllm.key import refuse_mismatch

    cache = cache_of(settings_of())
    folder = Path(what)
    entry = read_entry(folder) if folder.is_dir() else cache.entry(cache.find(_hex(what)))
    entry.verify()
    if gpu is not None:
        refuse_mismatch(entry.key, _runtime(gpu, entry.key, options))
    if output == "json":
        print_json(row(entry) | {"folder": entry.files, "verified": True})
        return
    told = f", and would run on {gpu}" if gpu else ""
    click.echo(f"{entry.key.digest.short}: {len(entry.manifest.files)} files as built{told}")
    click.echo(f"  {verdict_of(entry)}")


def _hex(text: str) -> str:
    return text.removeprefix("sha256:").lower()


def _wanted(model: ModelFacts, options: dict[str, Any]) -> Build:
    from components.steps.engine_asked import recipe_for
    from components.trtllm.model import Build, RuntimeImage, Shape, accelerator

    shape = Shape(
        tp=options["tp"],
        pp=options["pp"],
        max_batch_size=options["max_batch"],
        max_input_len=options["max_input"],
        max_seq_len=options["max_seq"],
        max_num_tokens=options["max_num_tokens"],
        max_beam_width=options["max_beam"],
    )
    image, gpu = RuntimeImage.parse(options["image"]), accelerator(options["gpu"])
    recipe = recipe_for(_precision(options["precision"]), gpu.name, image.tag)
    return Build(options["strategy"], model, recipe, shape, image, gpu, options["calibrate"])


def _precision(text: str) -> tuple[Recipe, ...]:
    """Return the recipe that is named or written; none keeps the weights as they came."""
    from penstock.core.recipes import parse_recipe, recipe_of
    from penstock.core.spec import AS_IT_CAME

    if text == AS_IT_CAME:
        return ()
    if not text.startswith("{"):
        return (recipe_of(text),)
    try:
        return (parse_recipe(json.loads(text), where="--precision"),)
    except ValueError as problem:
        raise ConfigurationError(f"--precision: not JSON: {problem}") from problem


def _places(folder: Path, options: dict[str, Any], work: PurePosixPath) -> Places:
    from components.trtllm.plan import Places

    source = PurePosixPath(folder.absolute())
    return Places(source, work, python=options["python"], examples=options["examples"])


def _node(wanted: Build, options: dict[str, Any], env: dict[str, str]) -> Node | None:
    """Return the node we are on, if it and its image are those that were asked for."""
    from components.trtllm.builder import node_for

    node = node_for(wanted, env, cuda=options["cuda"])
    if node and options["driver"] not in (None, node.driver):
        raise ConfigurationError(f"--driver {options['driver']}; this node has {node.driver}")
    return node


def _runtime(gpu: str, key: BuildKey, options: dict[str, Any]) -> Runtime:
    from components.trtllm.key import Node, Runtime
    from components.trtllm.model import RuntimeImage, accelerator

    found, image = accelerator(gpu), RuntimeImage.parse(options["image"])
    driver = options["driver"]
    if driver is None:
        if key.node is not None:
            raise ConfigurationError(
                "whether an engine runs depends on the node's driver",
                hint="name its major version: --driver 580",
            )
        driver = 0
    arch = key.node.arch if key.node else "x86_64"
    node = Node(found.name, found.sm or 0, driver, options["cuda"], arch=arch)
    return Runtime(image.identity, image.tag, node)
