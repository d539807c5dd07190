"""Restores one backup out of a copy of a tenant's folder, without the operator, a cluster or its programs.

    pip install zstandard cryptography pyrage blake3
    python restore.py FOLDER_OF_ONE_TENANT BACKUP_ID IDENTITY_FILE ed25519:PUBLIC_KEY OUTPUT_FOLDER

IDENTITY_FILE has a line AGE-SECRET-KEY-1…; `-` stands for none, when the backup is not encrypted. The public
key is on the recovery sheet and in the Tenant's status: do not take it from the store, where whoever can
write could have made the whole backup. Written from FORMAT.md alone; imports nothing of the project.

Each byte that is written was checked, down from the signature. OUTPUT_FOLDER gets schema.dump (pg_dump -Fc),
a .copy file per table (COPY text), largeobjects.dump if any, tables.json, load.sh; a .tar per volume.
Exit codes: 0 restored; 1 damaged or incomplete; 2 called wrongly; 3 the identity does not open it; 4 not
signed by this key, or another backup; 5 not a backup of PostgreSQL, or made by a newer version.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import struct
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyrage
import zstandard
from blake3 import blake3
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

DAMAGED, USAGE, WRONG_KEY, UNTRUSTED, UNSUPPORTED = range(1, 6)
FOOTER, FRAME_MAX = 16, 16 << 20  # a kind of frame; bytes


class Problem(Exception):
    """Why the backup is not restored: exit code and one sentence."""


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Say of which object it is that something is wrong."""
    try:
        yield
    except FileNotFoundError:
        raise Problem(DAMAGED, f"{name} is missing; bring it back from a copy") from None
    except InvalidTag:
        raise Problem(DAMAGED, f"{name} is damaged: it does not decrypt") from None
    except (ValueError, KeyError, IndexError, TypeError, struct.error, zstandard.ZstdError) as error:
        raise Problem(DAMAGED, f"{name} is damaged: {error}") from None


def require(condition: object, what: str) -> None:
    """Raise ValueError unless the condition holds."""
    if not condition:
        raise ValueError(what)


def derive(key: bytes, purpose: str, salt: bytes = b"") -> bytes:
    """Return the 32 bytes derived from a key for one purpose."""
    return HKDF(SHA256(), 32, salt, b"tenantbackup.dev/v1/" + purpose.encode()).derive(key)


class Backup:
    """One backup; all that can be checked before its rows are read has been checked."""

    def __init__(self, folder: Path, backup_id: str, identity: str, public_key: str) -> None:
        """`identity` is the text of an age key file, `public_key` 64 hex digits. Raises Problem."""
        self._folder, self._name = folder, f"manifests/{backup_id}"
        lines = [line.strip() for line in identity.splitlines() if line.startswith("AGE-SECRET-KEY-1")]
        try:
            self._identities = [pyrage.x25519.Identity.from_str(line) for line in lines]
        except pyrage.IdentityError:
            raise Problem(WRONG_KEY, "the identity file holds a line that is no age key") from None
        self.manifest = self._read_manifest(backup_id, public_key)
        self._slug, self._encryption = self.manifest["tenant"]["slug"], self.manifest["encryption"]
        self._readable = self._encryption["mode"] == "None"
        self._refs = {f"packs/{ref['id'][:2]}/{ref['id']}": ref for ref in self.manifest["packs"]}
        self._refs |= {f"lists/{ref['id']}": ref for ref in self.manifest["lists"]}
        for name, ref in self._refs.items():
            with reading(name):
                require((folder / name).stat().st_size == ref["length"], "it has another length")
        self._pack, self._frame = lru_cache(None)(self._open_pack), lru_cache(8)(self._open_frame)
        self._index_key = self._find_index_key()
        place = self.manifest["catalogue"]
        with reading("the catalogue"):
            numbers = range(place["first"], place["first"] + place["frames"])
            document = json.loads(b"".join(self._frame(f"lists/{place['list']}", n) for n in numbers))
            self.catalogue: dict[str, Any] = document["catalogue"]
            self.segments: dict[str, dict[str, Any]] = document["segments"]
            self._lists: list[str] = document["lists"]

    def segment(self, name: str) -> Iterator[bytes]:
        """Yield the bytes of one segment, each chunk after it was compared with its id."""
        length = rows = 0
        with reading(f"segment {name}"):
            segment = self.segments[name]
            for at, frame, part in segment["parts"]:
                for chunk in self._chunks(f"lists/{self._lists[at]}", frame, part):
                    length, rows = length + len(chunk), rows + chunk.count(b"\n")
                    yield chunk
            require(length == segment["bytes"], "it has another length")
            require(segment["rows"] in {None, rows}, "it has another number of rows")

    def _read_manifest(self, backup_id: str, public_key: str) -> dict[str, Any]:
        with reading(self._name):
            data = (self._folder / self._name).read_bytes()
        try:
            document: dict[str, Any] = json.loads(data)
            if document["formatVersion"] > 1:  # nothing else is believed before the signature
                raise Problem(UNSUPPORTED, f"{self._name} was made by a newer version; get its script")
            key, signature = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key)), data[-131:-3]
            require(data[-145:] == b',"signature":"%s"}\n' % signature, "there is no signature")
            key.verify(bytes.fromhex(signature.decode()), b"tenantbackup.dev/v1/manifest\0" + data[:-145])
        except (InvalidSignature, ValueError, LookupError, TypeError, RecursionError):
            raise Problem(UNTRUSTED, f"{self._name} was not signed by ed25519:{public_key}") from None
        if document["backupId"] != backup_id:
            raise Problem(UNTRUSTED, f"{self._name} is that of {document['backupId']}: somebody moved it")
        return document

    def _find_index_key(self) -> bytes:
        key_id, recipients = self._encryption["keyId"], self._encryption["recipientSet"]
        path = self._folder / f"keys/{key_id}.{'none' if self._readable else f'{recipients}.age'}"
        stored = path.read_bytes() if path.exists() else b""
        key = stored if self._readable else self._unwrap(key_id, stored, 64)[:32]
        with reading(f"keys/{path.name}"):
            require(len(key) == 32 and derive(key, "key id")[:8].hex() == key_id, "missing or another key")
        return key

    def _unwrap(self, key_id: str, wrapped: bytes, length: int) -> bytes:
        """Open a key, or what was wrapped again for one of us later."""
        own = [hashlib.sha256(str(one.to_public()).encode()).hexdigest()[:16] for one in self._identities]
        later = [path for one in own if (path := self._folder / f"keys/{key_id}.{one}.age").exists()]
        for copy in (wrapped, *(path.read_bytes() for path in later)):
            try:
                key = bytes(pyrage.decrypt(copy, self._identities))
            except pyrage.DecryptError:
                continue
            if len(key) == length:
                return key
        made_for = ", ".join(self._encryption["recipients"])
        raise Problem(WRONG_KEY, f"no identity opens key {key_id} of {self._name}, made for {made_for}")

    def _open_pack(self, name: str) -> tuple[bytes, bytes, list[tuple[int, int, int, int]]]:
        """Return id, key and frames as (kind, offset, sealed length, length) of a pack that is whole."""
        data, ref = (self._folder / name).read_bytes(), self._refs[name]
        pack, index = bytes.fromhex(ref["id"]), name.startswith("lists/")
        require(hashlib.sha256(data).hexdigest() == ref["sha256"], "its SHA-256 is not the manifest's")
        require(data[:32] == b"TBKPACK1" + b"DI"[index : index + 1] + bytes(7) + pack, "its header is odd")
        wrapped_length, footer_length, end = struct.unpack(">II8s", data[-16:])
        footer_at = len(data) - 16 - footer_length
        frames_end = footer_at - wrapped_length
        require(end == b"TBKPEND1" and frames_end >= 32, "it does not end as a pack")
        footer_key, wrapped = derive(self._index_key, "footer", pack), data[frames_end:footer_at]
        footer = self._unseal(footer_key, pack, (0, FOOTER, footer_length - 16), data[footer_at:-16])
        require(footer[:32] == hashlib.sha256(wrapped).digest(), "its wrapped key is another one")
        frames, at = [], 32
        for number in range(struct.unpack_from(">I", footer, 32)[0]):
            kind, sealed, length, _chunks = struct.unpack_from(">BIII", footer, 36 + 13 * number)
            frames.append((kind, at, sealed, length))
            at += sealed
        require(at == frames_end and sum(f[3] for f in frames) == ref["plain"], "its frames do not add up")
        bare = index or self._readable
        data_key = wrapped if bare else self._unwrap(hashlib.sha256(wrapped).hexdigest()[:16], wrapped, 32)
        secret, purpose = (self._index_key, "list") if index else (data_key, "pack")
        return pack, derive(secret, purpose, pack), frames

    def _open_frame(self, name: str, number: int) -> bytes:
        with reading(name):
            pack, key, frames = self._pack(name)
            kind, at, sealed, length = frames[number]
            require(length <= FRAME_MAX, "a frame is too large")
            with (self._folder / name).open("rb") as file:
                file.seek(at)
                compressed = self._unseal(key, pack, (number, kind, length), file.read(sealed))
            require(zstandard.frame_content_size(compressed) == length, "a frame has another length")
            return zstandard.decompress(compressed, max_output_size=length)

    def _unseal(self, key: bytes, pack: bytes, frame: tuple[int, int, int], sealed: bytes) -> bytes:
        bound = b"tenantbackup.dev/v1/frame\0" + self._slug.encode() + b"\0" + pack
        return AESGCM(key).decrypt(frame[0].to_bytes(12, "big"), sealed, bound + struct.pack(">IBI", *frame))

    def _chunks(self, name: str, frame: int, part: str) -> Iterator[bytes]:
        data = self._frame(name, frame)
        entries_at = 8 + 16 * struct.unpack_from(">I", data)[0]
        packs = [data[at : at + 16].hex() for at in range(4, entries_at - 4, 16)]
        entries = list(struct.iter_unpack(">32sIIII", data[entries_at:]))
        require(struct.unpack_from(">I", data, entries_at - 4) == (len(entries),), "a chunk list is cut")
        listed = blake3(b"".join(e[0] for e in entries), key=derive(self._index_key, "part id")).hexdigest()
        require(listed == part, f"frame {frame} of {name} holds another chunk list")
        key = derive(self._index_key, "chunk id")
        for chunk_id, at, number, offset, length in entries:
            pack = f"packs/{packs[at][:2]}/{packs[at]}"
            chunk = self._frame(pack, number)[offset : offset + length]
            same = blake3(chunk, key=key).digest() == chunk_id
            require(same, f"frame {number} of {pack} holds another chunk")
            yield chunk


def restore(backup: Backup, output: Path) -> None:
    """Do what the module says. Raises Problem."""
    catalogue, manifest = backup.catalogue, backup.manifest
    output.mkdir(parents=True, exist_ok=True)
    for volume in catalogue.get("files", ()):
        write(backup, volume["segments"], output / f"{volume['name']}.tar")
        print(f"{volume['files']} files of volume {volume['name']}: tar --xattrs -xpf {volume['name']}.tar")
    if not manifest["server"]["engine"]:
        return
    if manifest["server"]["engine"] != "PostgreSQL" or catalogue["format"] != 1:
        raise Problem(UNSUPPORTED, "this script knows PostgreSQL's format 1; else use tenant-backup export")
    write(backup, ["schema"], output / "schema.dump")
    if catalogue["largeObjects"]:
        write(backup, ["largeobjects"], output / "largeobjects.dump")
    for number, table in enumerate(catalogue["tables"], 1):
        table["file"] = f"{number:04}.copy" if table["withRows"] else None
        if table["withRows"]:
            write(backup, table["segments"], output / table["file"])
        if sum(backup.segments[name]["rows"] for name in table["segments"]) != table["rows"]:
            raise Problem(DAMAGED, f"{table['name']} should have {table['rows']} rows and has not")
    (output / "tables.json").write_text(json.dumps(catalogue["tables"], indent=1), "utf-8")
    # Names in a database without an encoding are bytes; each is one character in the catalogue.
    bare = catalogue["database"]["encoding"] == "SQL_ASCII"
    script = "\n".join([*load_script(catalogue, "SQL_ASCII" if bare else "UTF8"), ""])
    (output / "load.sh").write_text(script, "latin-1" if bare else "utf-8")
    print(f"{len(catalogue['tables'])} tables, {manifest['rows']} rows of {manifest['times']['snapshot']}")
    for name, item in ((table["name"], item) for table in catalogue["tables"] for item in table["excluded"]):
        print(f"not in the backup: {name}.{item['column']}; if it is NOT NULL, drop that before COPY")
    print(f"load it into an empty database: sh {shlex.quote(f'{output}/load.sh')} 'host=… user=… dbname=…'")


def write(backup: Backup, names: Sequence[str], target: Path) -> None:
    """Write segments into one file, one after the other."""
    with target.open("xb") as file:
        file.writelines(chunk for name in names for chunk in backup.segment(name))


def load_script(catalogue: dict[str, Any], names: str) -> Iterator[str]:
    """Yield the lines of a shell script that loads the files: pg_restore for definitions, psql for rows."""
    restore = 'pg_restore --no-owner --no-privileges --exit-on-error --dbname="$1"'
    encoding, loose = catalogue["database"]["encoding"], catalogue["looseForeignKeys"]
    # Some rows these point to were left out. pg_restore lists them in the backup's own encoding.
    keys = [f" FK CONSTRAINT {key['schema']} {key['table']} {key['name']} " for key in loose]
    listed = ", ".join("('" + key.replace("'", "''") + "')" for key in ["nothing else", *keys])
    yield f'set -eu\ncd "$(dirname "$0")"\nexport PGCLIENTENCODING={names}'
    yield psql(f"COPY (VALUES {listed}) TO STDOUT (ENCODING '{encoding}')", "-o left-out")
    yield "pg_restore --list schema.dump | LC_ALL=C grep -v -F -f left-out > schema.list"
    yield f"{restore} --use-list=schema.list --section=pre-data schema.dump"
    for table in (each for each in catalogue["tables"] if each["file"]):
        columns = f"({', '.join(map(quoted, table['columns']))})" if table["columns"] else ""
        copy = f"COPY {quoted(table['schema'], table['table'])} {columns} FROM STDIN (ENCODING '{encoding}')"
        yield f"{psql(copy)} < {table['file']}"
    if catalogue["largeObjects"]:
        yield f"{restore} largeobjects.dump"
    for one in catalogue["sequences"]:
        name = quoted(one["schema"], one["name"]).replace("'", "''")
        yield psql(f"SELECT setval('{name}', {one['last']}, {one['called']})")
    yield f"{restore} --use-list=schema.list --section=post-data schema.dump"
    for key in loose:
        added = f"CONSTRAINT {quoted(key['name'])} {key['definition'].removesuffix(' NOT VALID')} NOT VALID"
        yield psql(f"ALTER TABLE {quoted(key['schema'], key['table'])} ADD {added}")
    yield from (psql(f"REFRESH MATERIALIZED VIEW {quoted(*view)}") for view in catalogue["materializedViews"])


def psql(statement: str, options: str = "-o load.log") -> str:
    """Return a shell command that runs a statement."""
    return f'psql -X -q -v ON_ERROR_STOP=1 {options} -d "$1" -c {shlex.quote(statement)}'


def quoted(*parts: str) -> str:
    """Return a qualified SQL identifier."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in parts)


def main(arguments: Sequence[str]) -> int:
    """Return the exit code."""
    if len(arguments) != 5 or not arguments[3].startswith("ed25519:"):
        print(__doc__, file=sys.stderr)
        return USAGE
    folder, backup_id, identity, public_key, output = arguments
    try:
        if Path(output).exists() and any(Path(output).iterdir()):
            raise Problem(USAGE, f"{output} is not empty; name a new folder")  # noqa: TRY301 - told like the others
        text = "" if identity == "-" else Path(identity).read_text("utf-8")
        restore(Backup(Path(folder), backup_id, text, public_key.removeprefix("ed25519:")), Path(output))
    except (Problem, OSError) as problem:
        code, message = problem.args if isinstance(problem, Problem) else (USAGE, problem)
        print(message, file=sys.stderr)
        return int(code)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
