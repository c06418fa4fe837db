"""Compiled pipelines, read with the server's protobufs, and their parameters."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

import yaml
from google.protobuf import json_format
from google.protobuf.message import Message
from kfp.pipeline_spec import pipeline_spec_pb2

from tests.fakes.kfp.failure import Failure, invalid

_TYPES: dict[str, tuple[str, tuple[type, ...]]] = {
    "NUMBER_DOUBLE": (
        "double or integer, but the parameter value is not of number value",
        (float,),
    ),
    "NUMBER_INTEGER": ("double or integer, but the parameter value is not of number value", (int,)),
    "STRING": ("string, but the input parameter is not of string value", (str,)),
    "BOOLEAN": ("bool, but the input parameter is not of bool value", (bool,)),
    "LIST": ("list, but the input parameter is not of list value", (list,)),
    "STRUCT": ("struct, but the input parameter is not of struct value", (dict,)),
}


def read(documents: list[Any]) -> dict[str, Any]:
    """Return a pipeline and its platforms as the API shows them; `Failure` 400 if it is none."""
    spec: dict[str, Any] | None = None
    platform: dict[str, Any] | None = None
    for document in filter(None, documents):
        if _is_pipeline(document):
            if spec is not None:
                raise _bad("multiple pipeline specs provided")
            version = document.get("schemaVersion")
            if version != "2.1.0":
                raise _bad(
                    "KFP only supports schema version 2.1.0, but the pipeline spec has version "
                    f"{version}"
                )
            spec = document
        elif isinstance(document, dict) and "platforms" in document:
            platform = _platform(document)
    if spec is None:
        raise _bad("unknown template format")
    return spec if platform is None else {"pipeline_spec": spec, "platform_spec": platform}


def documents(shown: Mapping[str, Any]) -> list[Any]:
    """Return the documents of what the API shows, or is sent inline."""
    if "pipeline_spec" in shown:
        return [shown["pipeline_spec"], shown.get("platform_spec")]
    return [dict(shown)]


def parse(text: bytes) -> dict[str, Any]:
    """Return what a package that was uploaded holds."""
    try:
        found = list(yaml.safe_load_all(text))
    except yaml.YAMLError as problem:
        raise _bad(f"unable to decode yaml document: {problem}") from problem
    return read(found)


def spec_of(shown: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the pipeline alone."""
    found: Mapping[str, Any] = shown.get("pipeline_spec") or shown
    return found


def check_parameters(shown: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Raise `Failure` 400 where parameters are not the pipeline's."""
    inputs = spec_of(shown).get("root", {}).get("inputDefinitions", {}).get("parameters", {})
    for name, declared in inputs.items():
        if name not in given:
            if not declared.get("isOptional") and "defaultValue" not in declared:
                raise invalid(
                    f"parameter {name} is not optional, yet has neither default value nor user "
                    "provided value"
                )
            continue
        told, kinds = _TYPES[declared["parameterType"]]
        value = given[name]
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (number if kinds in ((float,), (int,)) else isinstance(value, kinds)):
            raise invalid(f"input parameter {name} requires type {told} type")
    extra = [name for name in given if name not in inputs]
    if extra:
        raise invalid(f"parameter(s) provided are not required by pipeline: {', '.join(extra)}")


def _is_pipeline(document: object) -> bool:
    if not isinstance(document, dict):
        return False
    try:
        spec = _parsed(document, pipeline_spec_pb2.PipelineSpec())
    except json_format.ParseError:
        return False
    return bool(spec.pipeline_info.name) and spec.HasField("root")


def _platform(document: dict[str, Any]) -> dict[str, Any]:
    try:
        _parsed(document, pipeline_spec_pb2.PlatformSpec())
        _kubernetes(document)
    except json_format.ParseError as problem:
        raise _bad(f"cannot unmarshal platform specific configs: {problem}") from problem
    return document


def _kubernetes(document: dict[str, Any]) -> None:
    """Read what is said per executor, where kfp-kubernetes is installed."""
    if importlib.util.find_spec("kfp.kubernetes") is None:
        return
    from kfp.kubernetes import kubernetes_executor_config_pb2 as configs

    deployment = document["platforms"].get("kubernetes", {}).get("deploymentSpec", {})
    for each in deployment.get("executors", {}).values():
        json_format.ParseDict(each, configs.KubernetesExecutorConfig())


def _parsed(document: dict[str, Any], message: Message) -> Any:
    return json_format.ParseDict(document, message)


def _bad(said: str) -> Failure:
    return Failure(400, said, f"InvalidInputError: {said}: invalid pipeline spec")
