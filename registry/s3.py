"""Published checkpoints in a store that speaks S3. boto3 (extra `cluster`) is imported late."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.core.errors import ConfigurationError, DigestMismatch, StoreError
from penstock.core.identity import Digest
from penstock.core.manifest import FileEntry, Manifest
from registry.published import MANIFEST, Teller
from registry.store import Progress, hash_file

_FILES_AT_ONCE = 4
_SHA256 = "penstock-sha256"
"""Key of an object's metadata."""


@dataclass(frozen=True, slots=True)
class S3Access:
    """How a store that speaks S3 is reached; an empty field leaves it to boto3's own rules."""

    endpoint: str = ""
    region: str = ""
    access_key: str = ""
    secret_key: str = ""

    def __repr__(self) -> str:
        return f"S3Access(endpoint={self.endpoint!r}, region={self.region!r})"


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket. Objects carry their SHA-256 twice: as S3's checksum, and as metadata to look at."""

    client: Any
    bucket: str
    prefix: str
    part_bytes: int = 64 << 20
    """Larger files are sent in parts of this size."""

    def has(self, manifest: Manifest) -> bool:
        """Return whether the manifest is there, and all it lists: something may have expired."""
        with refusals(self._where(manifest, MANIFEST)):
            if self._body(self._key(manifest, MANIFEST)) != manifest.to_json():
                return False
            with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
                keys = [self._key(manifest, entry.path) for entry in manifest.files]
                return all(pool.map(self._holds, keys, manifest.files))

    def put(self, folder: Path, manifest: Manifest, on_progress: Progress) -> None:
        """Send what is not there yet, the manifest last."""
        tell = Teller(manifest, on_progress)
        with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
            sent = [pool.submit(self._put, folder, manifest, e, tell) for e in manifest.files]
            try:
                for each in as_completed(sent):
                    each.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        text = manifest.to_json().encode()
        with refusals(self._where(manifest, MANIFEST)):
            self._send(self._key(manifest, MANIFEST), text, Digest.of(text))

    def _put(self, folder: Path, manifest: Manifest, entry: FileEntry, tell: Teller) -> None:
        key, path = self._key(manifest, entry.path), folder / entry.path
        with refusals(self._where(manifest, entry.path)):
            if self._holds(key, entry):
                tell(entry.size_bytes)
                return
            found = hash_file(path)
            if found != entry.digest:
                raise DigestMismatch(
                    f"{path}: is {found}, recorded as {entry.digest}",
                    hint="run `penstock run` again: it pulls what is damaged",
                )
            if entry.size_bytes <= self.part_bytes:
                self._send(key, path.read_bytes(), entry.digest)
                tell(entry.size_bytes)
            else:
                _Parts(self, key, entry, tell).send(path)
            if not self._holds(key, entry):
                raise StoreError(
                    f"{self._where(manifest, entry.path)}: not what was sent",
                    hint="somebody else writes there, or the store loses metadata",
                )

    def _send(self, key: str, body: bytes, digest: Digest) -> None:
        self.client.put_object(
            Bucket=self.bucket,
            Key=key,
            Body=body,
            Metadata={_SHA256: digest.hex},
            ChecksumSHA256=base64.b64encode(bytes.fromhex(digest.hex)).decode(),
        )

    def _holds(self, key: str, entry: FileEntry) -> bool:
        from botocore.exceptions import ClientError

        try:
            head = self.client.head_object(Bucket=self.bucket, Key=key)
        except ClientError as problem:
            if _status(problem) == 404:
                return False
            raise
        recorded = head.get("Metadata", {}).get(_SHA256)
        return bool(head["ContentLength"] == entry.size_bytes and recorded == entry.digest.hex)

    def _body(self, key: str) -> str | None:
        from botocore.exceptions import ClientError

        try:
            found = self.client.get_object(Bucket=self.bucket, Key=key)
        except ClientError as problem:
            if _status(problem) == 404 and problem.response["Error"]["Code"] != "NoSuchBucket":
                return None
            raise
        text: bytes = found["Body"].read()
        return text.decode(errors="replace")

    def _key(self, manifest: Manifest, path: str) -> str:
        return "/".join(part for part in (self.prefix, manifest.root.hex, path) if part)

    def _where(self, manifest: Manifest, path: str) -> str:
        return f"s3://{self.bucket}/{self._key(manifest, path)}"


@dataclass(frozen=True, slots=True)
class _Parts:
    """One large object, sent in parts; the parts of an attempt that broke off are not sent again.

    S3 checks every part against its SHA-256; the whole was checked before the first was sent.
    """

    place: Bucket
    key: str
    entry: FileEntry
    tell: Callable[[int], None]

    def send(self, path: Path) -> None:
        """Send the file."""
        upload = self._begun() or self._begin()
        where = {"Bucket": self.place.bucket, "Key": self.key, "UploadId": upload}
        there = self._there(where)
        done: list[dict[str, Any]] = []
        with path.open("rb") as file:
            number = 0
            while chunk := file.read(self.place.part_bytes):
                number += 1
                done.append(self._part(where, number, chunk, there))
                self.tell(len(chunk))
        self.place.client.complete_multipart_upload(**where, MultipartUpload={"Parts": done})

    def _part(
        self, where: dict[str, str], number: int, chunk: bytes, there: dict[int, dict[str, Any]]
    ) -> dict[str, Any]:
        checksum = base64.b64encode(bytes.fromhex(Digest.of(chunk).hex)).decode()
        known = there.get(number, {})
        tag = known.get("ETag")
        if not _same(known, chunk, checksum):
            tag = self.place.client.upload_part(
                **where, PartNumber=number, Body=chunk, ChecksumSHA256=checksum
            )["ETag"]
        return {"ETag": tag, "PartNumber": number, "ChecksumSHA256": checksum}

    def _begun(self) -> str | None:
        pages = self.place.client.get_paginator("list_multipart_uploads")
        for page in pages.paginate(Bucket=self.place.bucket, Prefix=self.key):
            for upload in page.get("Uploads", []):
                if upload["Key"] == self.key:
                    return str(upload["UploadId"])
        return None

    def _begin(self) -> str:
        begun = self.place.client.create_multipart_upload(
            Bucket=self.place.bucket,
            Key=self.key,
            ChecksumAlgorithm="SHA256",
            Metadata={_SHA256: self.entry.digest.hex},
        )
        return str(begun["UploadId"])

    def _there(self, where: dict[str, str]) -> dict[int, dict[str, Any]]:
        pages = self.place.client.get_paginator("list_parts").paginate(**where)
        return {part["PartNumber"]: part for page in pages for part in page.get("Parts", [])}


def _same(known: dict[str, Any], chunk: bytes, checksum: str) -> bool:
    """Whether a part that is there is this one; not every server tells its SHA-256."""
    told = known.get("ChecksumSHA256")
    if told is None:  # an ETag is the MD5 unless the bucket encrypts with keys of its own
        told, checksum = (
            known.get("ETag", "").strip('"'),
            hashlib.md5(chunk, usedforsecurity=False).hexdigest(),
        )
    return bool(told == checksum and known.get("Size") == len(chunk))


def client(access: S3Access) -> Any:
    """Return boto3's client.

    Raises:
        ConfigurationError: boto3 is not installed.
    """
    try:
        import boto3
        from botocore.config import Config
    except ImportError as missing:
        raise ConfigurationError(
            "publishing to S3 needs boto3", hint="pip install 'penstock[cluster]'"
        ) from missing
    return boto3.client(
        "s3",
        endpoint_url=access.endpoint or None,
        region_name=access.region or None,
        aws_access_key_id=access.access_key or None,
        aws_secret_access_key=access.secret_key or None,
        config=Config(
            retries={"mode": "standard", "max_attempts": 5},
            max_pool_connections=2 * _FILES_AT_ONCE,
            request_checksum_calculation="when_required",  # we send SHA-256 ourselves
        ),
    )


def _status(problem: Any) -> int:
    return int(problem.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


@contextmanager
def refusals(
    where: str,
    needs: str = "ListBucket, PutObject, GetObject, ListBucketMultipartUploads, "
    "ListMultipartUploadParts",
) -> Iterator[None]:
    """Turn the client's errors into ours.

    Args:
        where: What was asked for.
        needs: What the key must be allowed to do.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as problem:
        code = problem.response.get("Error", {}).get("Code", "")
        raise StoreError(
            f"{where}: refused: {code or _status(problem)}",
            hint=f"check the bucket and what the key may do: {needs}",
        ) from problem
    except BotoCoreError as problem:
        raise StoreError(
            f"{where}: cannot be reached: {problem}",
            hint="check the endpoint, the credentials and the network, then run again: it resumes",
        ) from problem
