"""S3 and what speaks like it, through obstore (Rust `object_store`; releases the GIL while it works).

Create-only by `If-None-Match: *`. Every PUT carries its SHA-256 twice, as `x-amz-checksum-sha256` and
in the signature, so a server that stored other bytes would have to ignore both. Retries are ours and
not the library's: after a PUT whose answer was lost only we know that "already exists" may mean us.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store as Client

from tenant_backup.contract import job as jobs
from tenant_backup.contract.reasons import Failure

from . import credentials, s3_errors
from .base import (
    BLOCK,
    PATIENCE,
    SMALL,
    Buffer,
    Digest,
    Entry,
    NotFoundError,
    check_name,
    digest_of,
    require_digest,
    view_of,
)

CONNECT_TIMEOUT = timedelta(seconds=3)
QUICK_TIMEOUT = timedelta(seconds=10)  # the whole of a small request
STALL_TIMEOUT = timedelta(seconds=15)  # a download without a byte
BULK_TIMEOUT = timedelta(minutes=10)  # one pack: 64 MiB at 110 kB/s
_PAGE = 1000  # names per list request
_ERRORS = (BaseError, OSError)  # what obstore raises; FileNotFoundError and friends are OSErrors
_T = TypeVar("_T")


def connect_s3(described: jobs.Store, root: str, secrets: Path) -> S3Store:
    """Return the S3 store `described`; see `stores.connect`."""
    keys = credentials.s3(described, secrets)
    options: dict[str, Any] = {
        "endpoint": described.endpoint.rstrip("/") or None,
        "region": described.region or "us-east-1",
        "access_key_id": keys.access_key_id,
        "secret_access_key": keys.secret_access_key,
        "checksum_algorithm": "SHA256",
        "disable_bulk_delete": True,  # not every server has it, and we delete one at a time
    }
    client = {"allow_http": described.endpoint.startswith("http://"), "connect_timeout": CONNECT_TIMEOUT}
    if keys.ca:
        client["root_certificate"] = keys.ca
    present = {key: value for key, value in options.items() if value is not None}
    return S3Store(described, root, present, client)


class S3Store:
    """Objects below `{bucket}/{root}`; keeps the promises of `base.Store`."""

    def __init__(
        self, described: jobs.Store, root: str, options: dict[str, Any], client: dict[str, Any]
    ) -> None:
        self._bucket = described.bucket
        self._root = root
        self._options = options
        self._client_options = client
        self._explain = s3_errors.Explainer(described)
        self._quick  # noqa: B018 - options that cannot work are reported before anything is asked

    @property
    def location(self) -> str:
        """See Store."""
        return f"s3://{self._bucket}/{self._root}"

    def put(self, name: str, source: Path | bytes, digest: Digest) -> None:
        """See Store. Memory: the file is mapped, and one request body per call is in flight."""
        view, key = view_of(source), self._key(name)
        require_digest(name, digest_of(view), digest)
        small = digest.length <= SMALL
        client = self._quick if small else self._puts
        self._patiently(
            name,
            lambda: obstore.put(client, key, view, mode="create", use_multipart=False),
            patience_starts_at_failure=not small,
        )

    def chunks(self, name: str, start: int = 0) -> Iterator[Buffer]:
        """See Store. A broken download goes on where it broke, as long as tries bring bytes."""
        at, length, fed = start, None, time.monotonic()
        while length is None or at < length:
            result = self._patiently(name, self._opening(name, at))
            length = int(result.meta["size"])
            stream = result.stream(min_chunk_size=BLOCK)
            try:
                for block in stream:
                    at += len(block)
                    yield memoryview(block)
                    fed = time.monotonic()
            except _ERRORS as error:
                if time.monotonic() - fed > PATIENCE:
                    raise self._explain.failure(error) from None
                time.sleep(0.2)

    def stat(self, name: str) -> int | None:
        """See Store."""
        try:
            head = self._patiently(name, lambda: obstore.head(self._quick, self._key(name)))
        except NotFoundError:
            self._require_bucket(name)
            return None
        return int(head["size"])

    def entries(self, folder: str, after: str = "") -> Iterator[Entry]:
        """See Store. One request per thousand names; a failed one is repeated, not the whole list."""
        last = self._key(after) if after else None
        while True:
            page = self._patiently(folder, self._listing(self._key(folder), last))
            for item in page:
                name = item["path"].removeprefix(f"{self._root}/")
                yield Entry(name, int(item["size"]), item["last_modified"].timestamp())
            if len(page) < _PAGE:
                return
            last = page[-1]["path"]

    def folders(self) -> Iterator[str]:
        """See Store. One request per thousand folders."""
        above = f"{self._root}/" if self._root else ""
        found = self._patiently(
            above, lambda: obstore.list_with_delimiter(self._quick, above or None)["common_prefixes"]
        )
        yield from sorted(path.removeprefix(above).rstrip("/") for path in found)

    def delete(self, name: str) -> None:
        """See Store."""
        try:
            self._patiently(name, lambda: obstore.delete(self._quick, self._key(name)))
        except NotFoundError:
            return

    def _opening(self, name: str, at: int) -> Callable[[], Any]:
        key = self._key(name)
        options = {"range": {"offset": at}} if at else None
        return lambda: obstore.get(self._gets, key, options=options)  # type: ignore[arg-type]

    def _listing(self, folder: str, last: str | None) -> Callable[[], list[Any]]:
        def page() -> list[Any]:
            pages = obstore.list(self._quick, folder, offset=last, chunk_size=_PAGE)
            return sorted(next(iter(pages), []), key=lambda item: str(item["path"]))

        return page

    def _require_bucket(self, name: str) -> None:
        # HEAD has no body: only GET tells "no such object" from "no such bucket".
        with contextlib.suppress(NotFoundError):
            self._patiently(name, self._opening(name, 0))

    def _key(self, name: str) -> str:
        check_name(name)
        return f"{self._root}/{name}" if self._root else name

    def _patiently(
        self, name: str, operation: Callable[[], _T], *, patience_starts_at_failure: bool = False
    ) -> _T:
        """Run `operation`, repeating what may heal for PATIENCE seconds.

        A pack may take minutes to send, so for it patience starts when the first try has failed.
        """
        give_up = None if patience_starts_at_failure else time.monotonic() + PATIENCE
        pause = 0.1
        while True:
            try:
                return operation()
            except _ERRORS as error:
                failure = self._explain.error(error, name)
            if not isinstance(failure, Failure) or not failure.retriable:
                raise failure
            give_up = give_up or time.monotonic() + PATIENCE
            pause = min(pause * 2, 3.0) * random.uniform(0.5, 1.0)  # noqa: S311 - spreads retries
            if time.monotonic() + pause > give_up:
                raise failure
            time.sleep(pause)

    @cached_property
    def _quick(self) -> Client:
        return self._client(timeout=QUICK_TIMEOUT)

    @cached_property
    def _puts(self) -> Client:
        return self._client(timeout=BULK_TIMEOUT)

    @cached_property
    def _gets(self) -> Client:
        return self._client(timeout=BULK_TIMEOUT, read_timeout=STALL_TIMEOUT)

    def _client(self, **timeouts: timedelta) -> Client:
        client: Any = {**self._client_options, **timeouts}
        options: Any = self._options
        try:
            return Client(
                self._bucket, config=options, client_options=client, retry_config={"max_retries": 0}
            )
        except (ValueError, *_ERRORS) as error:
            raise self._explain.misconfigured(error) from None
