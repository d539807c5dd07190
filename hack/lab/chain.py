"""A tenant's Secrets and store in a folder, and Jobs run on it as plain processes, as the command line does."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tenant_backup.cli import pipeline
from tenant_backup.contract import job as jobs
from tenant_backup.contract.results import Result

_PEAK = re.compile(r"VmHWM:\s+(\d+) kB")


@dataclass(frozen=True)
class Ended:
    """How one stage's process ended."""

    stage: str
    code: int
    result: Result | None
    peak_rss: int  # bytes, of the process itself without its children
    stderr: str


def facts(ended: Mapping[str, Ended], stage: str) -> dict[str, Any]:
    """Return the facts of a stage; every stage has to have ended well."""
    failed = "\n".join(f"{name}: {item.stderr}" for name, item in ended.items())
    assert {name: item.code for name, item in ended.items()} == dict.fromkeys(ended, 0), failed
    result = ended[stage].result
    assert result is not None
    return result.facts


@dataclass
class Chain:
    """A folder that stands for a tenant's Secrets, volumes and store; every run gets a pod's folders of its own.

    A volume is the folder of its name below `files`.
    """

    folder: Path
    index_key: bytes = field(default_factory=lambda: os.urandom(32))
    signing_seed: bytes = field(default_factory=lambda: os.urandom(32))

    @property
    def signing_key(self) -> str:
        """The public half of the signing key, hex."""
        return Ed25519PrivateKey.from_private_bytes(self.signing_seed).public_key().public_bytes_raw().hex()

    def write_secret(self, name: str, values: Mapping[str, str | bytes]) -> None:
        """Write one Secret as the kubelet would mount it."""
        where = self.folder / "secrets" / name
        where.mkdir(parents=True, exist_ok=True)
        for key, value in values.items():
            (where / key).write_bytes(value.encode() if isinstance(value, str) else value)

    def write_keys(self) -> None:
        """Write the per-tenant keys that the operator would have made."""
        self.write_secret("keys", {"indexKey": self.index_key, "signingKey": self.signing_seed})

    def run(
        self, job: jobs.Job, *, seconds: float = 300, meanwhile: pipeline.Watch = lambda _: None
    ) -> dict[str, Ended]:
        """Run all stages of a job; return how each ended. `prepare` goes first, as in the pod.

        `meanwhile` is called all the time with the stages that run.
        """
        store = self.folder / "store"
        store.mkdir(exist_ok=True)
        watch = _Watch(time.monotonic() + seconds, meanwhile)
        with tempfile.TemporaryDirectory(prefix="tb-") as root:
            mounts = pipeline.Mounts(self.folder / "secrets", store, self.folder / "files")
            ended = pipeline.run(job, Path(root) / "pod", mounts, watch)
        return {
            stage: Ended(stage, item.code, item.result, watch.peaks.get(stage, 0), item.stderr)
            for stage, item in ended.items()
        }


class _Watch:
    """Notes the peak memory of every stage, and loses patience in the end."""

    def __init__(self, give_up: float, meanwhile: pipeline.Watch) -> None:
        self._give_up, self._meanwhile = give_up, meanwhile
        self.peaks: dict[str, int] = {}  # bytes

    def __call__(self, running: Sequence[pipeline.Running]) -> None:
        """See pipeline.Watch."""
        self._meanwhile(running)
        for item in running:
            with contextlib.suppress(OSError):
                found = _PEAK.search(Path(f"/proc/{item.process.pid}/status").read_text())
                if found:
                    self.peaks[item.stage] = int(found[1]) * 1024
        if time.monotonic() > self._give_up:
            late = [item.stage for item in running if item.process.poll() is None]
            raise TimeoutError(f"{', '.join(late)} did not end")
