"""Where things are inside a Job's pod: the same in every container that mounts them.

`TENANT_BACKUP_ROOT` moves all of it below another folder, so that the same stages run as plain
processes without containers: in tests, in the bench, and by hand.
"""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(os.environ.get("TENANT_BACKUP_ROOT", "/"))

RUN = ROOT / "run/tenant-backup"  # emptyDir in memory, all containers: sockets and small JSON
SPOOL = ROOT / "spool"  # emptyDir, archive+upload or download+open: a few packs, bounded
SCRATCH = ROOT / "scratch"  # emptyDir in memory, one per container: passfile, pg_dump output
SECRETS = ROOT / "secrets"  # one read-only mount per Secret, optional: the stage says KeyMissing
VOLUME = ROOT / "store"  # the volume of a volume store
FILES = ROOT / "files"  # the tenant's volumes with files, each in the one container that needs it

DATABASE = "database"  # username, password
DATABASE_CA = "database-ca"  # ca.crt
ADMIN = "admin"  # username, password
STORE = "store"  # accessKeyId, secretAccessKey
STORE_CA = "store-ca"  # ca.crt
KEYS = "keys"  # indexKey (32 bytes), signingKey (Ed25519 seed, 32 bytes)
IDENTITY = "identity"  # identity: one line AGE-SECRET-KEY-1…

ARCHIVE_SOCKET = "archive.sock"  # dump, gather -> archive
UPLOAD_SOCKET = "upload.sock"  # archive -> upload
DOWNLOAD_SOCKET = "download.sock"  # open, examine -> download
OPEN_SOCKET = "open.sock"  # load, place -> open
PREPARED = "prepared.json"  # prepare -> archive, upload
BASE = "base"  # below SPOOL, prepare -> archive: manifest and index packs of an earlier backup

TERMINATION_MESSAGE = ROOT / "dev/termination-log"
TERMINATION_MESSAGE_LIMIT = 2048  # bytes; the kubelet shares 12 KiB among all containers of a pod
