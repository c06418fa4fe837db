"""Data sets in a store that speaks S3."""

from __future__ import annotations

from pathlib import Path

from penstock.core.errors import ConfigurationError
from penstock.core.settings import Settings
from penstock.core.sources import DataRef
from registry.s3 import S3Access, client, refusals


def bring(name: str, ref: DataRef, settings: Settings, target: Path) -> None:
    """Download an object.

    Args:
        name: What the spec calls it.
        ref: The object.
        settings: How the store is reached; keys come from where boto3 looks for them.
        target: File to write.
    """
    from botocore.exceptions import ClientError

    bucket, _, key = ref.where.partition("/")
    access = S3Access(settings.s3_endpoint, settings.s3_region)
    with refusals(f"{name}: {ref}", needs="GetObject"):
        try:
            found = client(access).get_object(Bucket=bucket, Key=key)
        except ClientError as problem:
            if problem.response.get("Error", {}).get("Code") in ("NoSuchKey", "NoSuchBucket"):
                raise ConfigurationError(
                    f"{name}: {ref}: no such object",
                    hint="it was there before? put it back, or correct data in model.yaml",
                ) from problem
            raise
        with target.open("wb") as out:
            for chunk in found["Body"].iter_chunks(1 << 20):
                out.write(chunk)
