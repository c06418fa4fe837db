"""Publishing: a pipeline's version is its content, so the second time finds the first."""

from __future__ import annotations

from dataclasses import dataclass

from penstock import __version__
from pipelines.submission.client import SubmissionClient
from pipelines.submission.errors import Missing, OtherVersion
from pipelines.submission.naming import penstock_of
from pipelines.submission.package import Package
from pipelines.submission.values import Pipeline, Version


@dataclass(frozen=True, slots=True)
class Published:
    """A version the server has."""

    pipeline: Pipeline
    version: Version
    uploaded: bool
    """False: it was there already."""


def publish(client: SubmissionClient, package: Package) -> Published:
    """Return the version of a package on the server, uploaded if it was not there."""
    pipeline = client.pipelines.named(package.name) or client.pipelines.create(
        package.name, description=package.description
    )
    there = client.pipelines.versions(pipeline.pipeline_id, name=package.version)
    if there:
        return Published(pipeline, there[0], uploaded=False)
    version = client.pipelines.add_version(
        pipeline.pipeline_id,
        package.version,
        package.text,
        description=f"Penstock {__version__}; sha256 of the IR: {package.digest}",
    )
    return Published(pipeline, version, uploaded=True)


def published(client: SubmissionClient, package: Package, *, version: str = "") -> Published:
    """Return a version that is on the server, without uploading anything.

    Args:
        client: The server.
        package: Which pipeline, as this Penstock compiles it.
        version: Name of another version of it; that of the package without one.

    Raises:
        Missing: If it is not published.
        OtherVersion: If another Penstock published it, whose steps may want another spec.
    """
    name = version or package.version
    other = penstock_of(name)
    if other is not None and other != __version__:
        raise OtherVersion(
            f"{package.name} {name} was published by Penstock {other}; this is {__version__}",
            hint=f"penstock pipelines publish, or pip install penstock=={other}",
        )
    pipeline = client.pipelines.named(package.name)
    found = pipeline and client.pipelines.versions(pipeline.pipeline_id, name=name)
    if not pipeline or not found:
        raise Missing(
            f"{package.name} {name}: it is not published",
            hint="penstock pipelines publish; penstock pipelines list shows what is there",
        )
    return Published(pipeline, found[0], uploaded=False)


def newest(client: SubmissionClient, name: str) -> Published:
    """Return the newest version of a pipeline: what a recurring run takes.

    Args:
        client: The server.
        name: Of the pipeline, on the server.

    Raises:
        Missing: If it is not published.
        OtherVersion: If another Penstock published it.
    """
    pipeline = client.pipelines.named(name)
    found = client.pipelines.versions(pipeline.pipeline_id) if pipeline else ()
    if pipeline is None or not found:
        raise Missing(f"{name}: it is not published", hint="penstock pipelines publish")
    other = penstock_of(found[0].name)
    if other is not None and other != __version__:
        raise OtherVersion(
            f"the newest version of {name} is {found[0].name}, of Penstock {other}; "
            f"this is {__version__}",
            hint=f"penstock pipelines publish, or pip install penstock=={other}",
        )
    return Published(pipeline, found[0], uploaded=False)
