"""Pipelines and their versions."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from pipelines.submission import reading
from pipelines.submission.errors import Missing, Taken
from pipelines.submission.paging import listed, where
from pipelines.submission.refusals import Ask
from pipelines.submission.transport import Transport
from pipelines.submission.values import Pipeline, Version

_SERVICE = "PipelineServiceApi"


class Pipelines:
    """The pipelines of one namespace.

    Names are unique on the server, so a request whose answer got lost is simply sent again: it
    finds the name taken, by itself.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def named(self, name: str) -> Pipeline | None:
        """Return the pipeline of this name; None if there is none."""
        ask = Ask("read", f"pipeline {name}")
        scope = self._scope()
        try:
            return reading.pipeline(
                self._transport.call(
                    ask, _SERVICE, "pipeline_service_get_pipeline_by_name", name=name, **scope
                )
            )
        except Missing:
            return None

    def list(self) -> tuple[Pipeline, ...]:
        """Return every pipeline, by name."""
        scope = self._scope()
        bodies = listed(
            lambda **page: self._transport.call(
                Ask("list", "pipelines"),
                _SERVICE,
                "pipeline_service_list_pipelines",
                sort_by="name asc",
                **scope,
                **page,
            ),
            "pipelines",
        )
        return tuple(reading.pipeline(body) for body in bodies)

    def versions(self, pipeline_id: str, *, name: str = "") -> tuple[Version, ...]:
        """Return the versions of a pipeline, the newest first.

        Args:
            pipeline_id: Of which pipeline.
            name: Only that of this name.
        """
        bodies = listed(
            lambda **page: self._transport.call(
                Ask("list", f"pipeline {pipeline_id}'s versions"),
                _SERVICE,
                "pipeline_service_list_pipeline_versions",
                pipeline_id=pipeline_id,
                sort_by="created_at desc",
                filter=where(name=name),
                **page,
            ),
            "pipeline_versions",
        )
        return tuple(reading.version(body) for body in bodies)

    def create(self, name: str, *, description: str = "") -> Pipeline:
        """Create a pipeline without versions; the one that is there if it is."""
        import kfp_server_api as api

        body = api.V2beta1Pipeline(
            name=name, display_name=name, description=description or None, **self._scope()
        )
        ask = Ask("create", f"pipeline {name}", "same")
        try:
            return reading.pipeline(
                self._transport.call(
                    ask, _SERVICE, "pipeline_service_create_pipeline", pipeline=body
                )
            )
        except Taken:
            found = self.named(name)
            if found is None:
                raise
            return found

    def add_version(
        self, pipeline_id: str, name: str, package: str, *, description: str = ""
    ) -> Version:
        """Upload a compiled package as a version; the one of this name if it is there.

        Args:
            pipeline_id: Of which pipeline.
            name: Unique among its versions.
            package: The text of the compiled package: both YAML documents.
            description: For people.
        """
        ask = Ask("publish", f"pipeline version {name}", "same")
        with tempfile.TemporaryDirectory(prefix="penstock-") as folder:
            path = Path(folder) / "pipeline.yaml"
            path.write_text(package, encoding="utf-8")
            try:
                return reading.version(
                    self._transport.call(
                        ask,
                        "PipelineUploadServiceApi",
                        "upload_pipeline_version",
                        uploadfile=str(path),
                        name=name,
                        display_name=name,
                        pipelineid=pipeline_id,
                        description=description,
                    )
                )
            except Taken:
                found = self.versions(pipeline_id, name=name)
                if not found:
                    raise
                return found[0]

    def _scope(self) -> dict[str, Any]:
        return {"namespace": self._transport.namespace} if self._transport.namespace else {}
