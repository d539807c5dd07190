"""Where packs and manifests live: S3 or a volume behind one protocol (`base.Store`).

`connect` is the only door; it imports just the store asked for, because start-up time is on the
path of every small backup.
"""

from __future__ import annotations

from pathlib import Path

from tenant_backup.contract import job as jobs
from tenant_backup.contract import paths
from tenant_backup.contract.reasons import Failure, Reason

from .base import Store


def connect(
    described: jobs.Store, under: str, *, secrets: Path = paths.SECRETS, volume: Path = paths.VOLUME
) -> Store:
    """Return the store `described`, its names relative to `{prefix}/{under}`. Asks no server yet.

    Raises Failure: SecretNotFound or KeyMissing without credentials, InvalidSpec for an endpoint
    or certificate that cannot be read, StoreUnavailable when no volume is mounted.
    """
    root = "/".join(part for part in (described.prefix.strip("/"), under) if part)
    if ".." in root.split("/"):
        raise Failure(Reason.INVALID_SPEC, f'the store prefix "{described.prefix}" leads outside the store')
    if described.kind == "volume":
        from .volume import VolumeStore

        return VolumeStore(volume, root)
    from .s3 import connect_s3

    return connect_s3(described, root, secrets)
