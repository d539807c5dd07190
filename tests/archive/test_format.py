"""docs/FORMAT.md tells the truth, and what it told yesterday still holds."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyrage
import pytest
import zstandard
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from docs import restore as script
from hack.lab.chain import Chain
from hack.lab.host_postgres import PASSWORD, HostPostgres, host_postgres
from hack.lab.kubectl import ROOT
from tenant_backup.archive import chunks as chunks_module
from tenant_backup.archive import names
from tenant_backup.archive import writer as writer_module
from tenant_backup.archive.frame import Kind
from tenant_backup.archive.key_finder import KeyFinder
from tenant_backup.archive.keys import IndexKey
from tenant_backup.archive.lists import decode_catalogue, decode_chunks, encode_catalogue, encode_chunks
from tenant_backup.archive.manifest import Manifest, sign, verify
from tenant_backup.archive.pack import Binding, PackKind, PackReader, PackWriter
from tenant_backup.archive.reader import ArchiveReader, open_index_key
from tenant_backup.contract import job as jobs
from tenant_backup.contract.reasons import Failure, Reason
from tests.archive.golden.make import FIRST, SECOND, summary
from tests.archive.sample import BACKUP_ID, Folder, Keyring, Segments, open_reader, read_all, write

GOLDEN = Path(__file__).parent / "golden" / "v1"
SCRIPT = ROOT / "docs" / "restore.py"
BACKUPS = sorted(str(path.relative_to(GOLDEN)) for path in GOLDEN.glob("*/manifests/*"))
ROWS = b"".join(b"%d\tGr\xc3\xbc\xc3\x9fe %d\t\\N\n" % (n, n) for n in range(20_000))
CONTENTS = {"t1/0": ROWS, "t1/1": b"", "schema": bytes(range(256)) * 10}

PARTLY = """
CREATE TABLE parent (id int PRIMARY KEY);
CREATE TABLE "tür" (id int REFERENCES parent, name text, secret text);
INSERT INTO parent VALUES (7);
INSERT INTO "tür" VALUES (7, 'Grüß', 'hidden');
"""

SECRETS: dict[str, str] = json.loads((GOLDEN / "keys.json").read_text())
EXPECTED: dict[str, dict[str, Any]] = json.loads((GOLDEN / "contents.json").read_text())


def golden_keys(archive: str = "full") -> Keyring:
    """The keys of the golden tenant, with the identity that reads this archive."""
    identity = SECRETS["newIdentity" if archive == "rewrapped" else "identity"]
    recipient = pyrage.x25519.Identity.from_str(identity).to_public()
    return Keyring(
        IndexKey(bytes.fromhex(SECRETS["indexKey"])),
        Ed25519PrivateKey.from_private_bytes(bytes.fromhex(SECRETS["signingSeed"])),
        identity,
        [str(recipient)],
    )


def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every kind of boundary in less than a megabyte; readers rely on none of these numbers."""
    monkeypatch.setattr(chunks_module, "CHUNK_MIN", 1000)
    monkeypatch.setattr(chunks_module, "CHUNK_MAX", 4000)
    monkeypatch.setattr(chunks_module, "FRAME_MAX", 16_384)
    monkeypatch.setattr(chunks_module, "_spare", deque())
    monkeypatch.setattr(writer_module, "FRAME_MAX", 1000)
    monkeypatch.setattr(writer_module, "PART_CHUNKS", 20)
    monkeypatch.setattr(writer_module, "PACK_TARGET", 20_000)
    monkeypatch.setattr(writer_module, "_INDEX_PACK_TARGET", 4000)


def test_the_script_reads_what_is_written_today(
    folder: Folder, keys: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With several packs, index packs, parts and pieces of the catalogue."""
    small_limits(monkeypatch)
    segments: Segments = {
        name: (Kind.BLOB if name == "schema" else Kind.ROWS, [data]) for name, data in CONTENTS.items()
    }
    written = write(folder, keys, segments)
    assert min(len(written.packs), len(written.lists), written.catalogue.frames) > 1
    backup = script.Backup(folder.root, BACKUP_ID, keys.identity_text, keys.public)
    assert {name: b"".join(backup.segment(name)) for name in backup.segments} == CONTENTS
    assert read_all(open_reader(folder, keys)) == CONTENTS


# Golden archives: tests/archive/golden/README.md.


@pytest.fixture(params=BACKUPS)
def golden(request: pytest.FixtureRequest, folder: Folder) -> tuple[str, Folder, str]:
    """Name, copy and backup of each golden archive."""
    archive, _, backup_id = request.param.split("/")
    shutil.copytree(GOLDEN / archive, folder.root, dirs_exist_ok=True)
    return archive, folder, backup_id


def test_our_reader_reads_golden_archives_for_ever(golden: tuple[str, Folder, str]) -> None:
    """Without the cluster's key, and without an identity where none is needed."""
    archive, folder, backup_id = golden
    keys = golden_keys(archive)
    manifest = verify((folder.root / names.manifest(backup_id)).read_bytes(), keys.public)
    identity = None if archive == "none" else keys.identity
    reader = ArchiveReader(manifest, open_index_key(manifest, None, identity, folder), identity, folder)
    reader.check_presence()
    reader.check_identity()
    assert summary(read_all(reader)) == EXPECTED[f"{archive}/{backup_id}"]


def run_script(
    archive: Path, backup_id: str, output: Path, **changes: str
) -> subprocess.CompletedProcess[str]:
    """Run docs/restore.py as its reader would; keyword arguments replace its own."""
    told = {"identity": SECRETS["identity"], "key": f"ed25519:{SECRETS['signingKey']}"} | changes
    key_file = output.with_name("identity.txt")
    key_file.write_text(f"# created by age-keygen\n{told['identity']}\n")
    identity = "-" if told["identity"] == "-" else str(key_file)
    command = [sys.executable, "-I", str(SCRIPT), str(archive), backup_id, identity, told["key"], str(output)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_script_reads_golden_archives_for_ever(golden: tuple[str, Folder, str], tmp_path: Path) -> None:
    """Every segment arrives in its file."""
    archive, folder, backup_id = golden
    output = tmp_path / "restored" / "here"
    output.parent.mkdir()
    identity = {"none": "-", "rewrapped": SECRETS["newIdentity"]}.get(archive, SECRETS["identity"])
    done = run_script(folder.root, backup_id, output, identity=identity)
    assert (done.returncode, done.stderr) == (0, "")
    files = {
        table["segments"][0]: table["file"] for table in json.loads((output / "tables.json").read_text())
    }
    files |= {"schema": "schema.dump", "largeobjects": "largeobjects.dump"}
    restored = summary({segment: (output / file).read_bytes() for segment, file in files.items()})
    assert restored == EXPECTED[f"{archive}/{backup_id}"]


def test_golden_archives_are_what_their_names_say() -> None:
    """Otherwise they would prove less than they seem to."""
    first, second = (GOLDEN / "chain" / names.manifest(one) for one in (FIRST, SECOND))
    one, two = (verify(path.read_bytes(), SECRETS["signingKey"]) for path in (first, second))
    assert set(one.packs) & set(two.packs) and set(one.lists) & set(two.lists)
    assert set(two.packs) - set(one.packs) and set(two.lists) - set(one.lists)
    cut = verify((GOLDEN / "boundaries" / names.manifest(FIRST)).read_bytes(), SECRETS["signingKey"])
    assert min(len(cut.packs), len(cut.lists), cut.catalogue.frames) > 1
    none = verify((GOLDEN / "none" / names.manifest(FIRST)).read_bytes(), SECRETS["signingKey"])
    assert none.encryption.mode == "None"


def test_the_second_of_a_chain_is_read_without_the_first(folder: Folder, tmp_path: Path) -> None:
    """The first manifest is deleted, and then what no manifest names any more."""
    shutil.copytree(GOLDEN / "chain", folder.root, dirs_exist_ok=True)
    (folder.root / names.manifest(FIRST)).unlink()
    manifest = verify((folder.root / names.manifest(SECOND)).read_bytes(), SECRETS["signingKey"])
    needed = {ref.id for ref in (*manifest.packs, *manifest.lists)}
    for name in folder.names():
        if name.startswith(("packs/", "lists/")) and name.rsplit("/", 1)[1] not in needed:
            (folder.root / name).unlink()
    expected = EXPECTED[f"chain/{SECOND}"]
    assert summary(read_all(open_reader(folder, golden_keys(), backup_id=SECOND))) == expected
    assert run_script(folder.root, SECOND, tmp_path / "restored").returncode == 0


def test_todays_writer_makes_golden_archives_again_byte_for_byte(
    golden: tuple[str, Folder, str], tmp_path: Path
) -> None:
    """From the same keys, ids and compressed frames: where rows are cut and how well they compress is free."""
    archive, folder, backup_id = golden
    keys = golden_keys(archive)
    path = folder.root / names.manifest(backup_id)
    manifest = verify(path.read_bytes(), keys.public)
    assert sign(manifest, keys.signing) == path.read_bytes()
    for ref in (*manifest.packs, *manifest.lists):
        kind = PackKind.DATA if ref in manifest.packs else PackKind.INDEX
        original = folder.root / (names.pack(ref.id) if kind is PackKind.DATA else names.index_pack(ref.id))
        again = tmp_path / "again"
        assert write_again(original, again, ref.id, kind, manifest, keys, folder) == ref
        assert again.read_bytes() == original.read_bytes()


def write_again(
    original: Path,
    again: Path,
    pack_id: str,
    kind: PackKind,
    manifest: Manifest,
    keys: Keyring,
    folder: Folder,
) -> Any:
    """Read a pack and write it again; return its reference."""
    index = keys.index.of(manifest.encryption.mode)
    binding = Binding(kind, pack_id, "acme", index)
    found = {}

    def frame_key(wrapped: bytes) -> bytes:
        stored = {name: (folder.root / name).read_bytes() for name in folder.names()}
        finder = KeyFinder(manifest, keys.identity, stored.get)
        key = finder.data_key(wrapped, pack_id).frame_key(pack_id) if wrapped else index.frame_key(pack_id)
        found.update(wrapped=wrapped, key=key)
        return key

    with closing(PackReader(original, binding, frame_key)) as pack:
        writer = PackWriter(again, binding, found["key"], found["wrapped"])
        cipher, start, data = binding.cipher(found["key"]), 32, original.read_bytes()
        for number, frame in enumerate(pack.frames):
            sealed = data[start : start + frame.sealed]
            compressed = cipher.open(number, frame.kind, frame.plain, sealed)
            assert zstandard.frame_content_size(compressed) == frame.plain
            writer.append(frame.kind, frame.plain, compressed, frame.chunks)
            start += frame.sealed
            if frame.kind is Kind.CHUNKS:
                plain = pack.frame(number)
                assert encode_chunks(decode_chunks(plain)) == plain
        return writer.finish()


def test_todays_writer_makes_golden_catalogues_again_byte_for_byte(golden: tuple[str, Folder, str]) -> None:
    """Members, order and numbers."""
    archive, folder, backup_id = golden
    keys = golden_keys(archive)
    manifest = verify((folder.root / names.manifest(backup_id)).read_bytes(), keys.public)
    place = manifest.catalogue
    index = keys.index.of(manifest.encryption.mode)
    binding = Binding(PackKind.INDEX, place.list, "acme", index)
    path = folder.root / names.index_pack(place.list)
    with closing(PackReader(path, binding, lambda _: index.frame_key(place.list))) as pack:
        plain = b"".join(pack.frame(place.first + number) for number in range(place.frames))
    assert encode_catalogue(decode_catalogue(plain)) == plain


def test_golden_key_objects_hold_what_todays_writer_puts_there() -> None:
    """Age makes other ciphertext each time; the plaintext is index key and signing seed."""
    keys = golden_keys()
    (stored,) = (GOLDEN / "full" / "keys").iterdir()
    used = keys.writer_keys()
    assert f"keys/{stored.name}" == used.stored_name()
    assert keys.identity.open(stored.read_bytes(), 64) == used.tenant.joined()
    (readable,) = (GOLDEN / "none" / "keys").iterdir()
    unencrypted = replace(keys, mode="None", recipients=[]).writer_keys()
    assert (f"keys/{readable.name}", readable.read_bytes()) == (
        unencrypted.stored_name(),
        unencrypted.stored(),
    )


@dataclass
class GoldenChain:
    """A copy of the golden chain, to be damaged. `older` is the pack of the first backup."""

    folder: Folder
    older: str
    newer: str

    def put(self, name: str, data: bytes) -> None:
        """Put another object in its place."""
        self.folder.put(name, data)

    def read(self, name: str) -> bytes:
        """Return an object."""
        return (self.folder.root / name).read_bytes()


@pytest.fixture
def chain(folder: Folder) -> GoldenChain:
    """The golden chain."""
    shutil.copytree(GOLDEN / "chain", folder.root, dirs_exist_ok=True)
    manifest = verify((folder.root / names.manifest(SECOND)).read_bytes(), SECRETS["signingKey"])
    newer, older = (names.pack(ref.id) for ref in manifest.packs)
    return GoldenChain(folder, older, newer)


def flip_older(chain: GoldenChain) -> None:
    """One bit among rows that have not changed since."""
    data = chain.read(chain.older)
    middle = len(data) // 2
    chain.put(chain.older, data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])


def cut_older(chain: GoldenChain) -> None:
    """The last byte is gone."""
    chain.put(chain.older, chain.read(chain.older)[:-1])


def swap(chain: GoldenChain) -> None:
    """Each in the other's place, and of the other's length."""
    older, newer = chain.read(chain.older), chain.read(chain.newer)
    chain.put(chain.older, newer + bytes(len(older) - len(newer)))


def replay(chain: GoldenChain) -> None:
    """The same rows of the same tenant from another backup, renamed inside its own header."""
    (other,) = (GOLDEN / "full").glob("packs/*/*")
    data, own = other.read_bytes(), chain.read(chain.older)
    surplus = len(data) - len(own)
    assert surplus >= 0
    chain.put(chain.older, own[:32] + data[32 + surplus :])


def delete_older(chain: GoldenChain) -> None:
    """As a cleanup that looks at age alone does."""
    (chain.folder.root / chain.older).unlink()


def move_manifest(chain: GoldenChain) -> None:
    """The first backup under the second's name."""
    chain.put(names.manifest(SECOND), chain.read(names.manifest(FIRST)))


def forge_manifest(chain: GoldenChain) -> None:
    """Signed by somebody else, all else in order."""
    manifest = verify(chain.read(names.manifest(SECOND)), SECRETS["signingKey"])
    chain.put(names.manifest(SECOND), sign(manifest, Ed25519PrivateKey.generate()))


@pytest.mark.parametrize(
    ("damage", "reason", "said"),
    [
        (flip_older, Reason.CHECKSUM_MISMATCH, "{older} is damaged: frame 8 is not what was written"),
        (cut_older, Reason.CHECKSUM_MISMATCH, "{older} is damaged: it has 10757 bytes, not 10758"),
        (swap, Reason.CHECKSUM_MISMATCH, "{older} is damaged: it does not begin as this pack"),
        (replay, Reason.CHECKSUM_MISMATCH, "{older} is damaged: its footer is not what was written"),
        (delete_older, Reason.PACK_MISSING, "{older} is not in the store any more"),
        (move_manifest, Reason.SIGNATURE_INVALID, f"{SECOND} is the manifest of {FIRST}: somebody moved it"),
        (forge_manifest, Reason.SIGNATURE_INVALID, "was not signed by this tenant's key"),
    ],
)
def test_each_damage_to_a_golden_chain_is_told_apart(
    chain: GoldenChain, damage: Callable[[GoldenChain], None], reason: Reason, said: str
) -> None:
    """By the second backup, of what the first one wrote; the store's own checksums are not asked."""
    damage(chain)
    with pytest.raises(Failure) as caught:
        read_all(open_reader(chain.folder, golden_keys(), backup_id=SECOND))
    assert caught.value.reason is reason
    assert said.format(older=chain.older) in caught.value.message


# docs/restore.py


def test_the_script_is_short_and_imports_nothing_of_ours() -> None:
    """So that somebody can read it, and it runs where nothing of ours is left."""
    source = SCRIPT.read_text()
    assert source.count("\n") < 300
    imported = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module
            imported.add(node.module.split(".")[0])
    foreign = {"zstandard", "cryptography", "pyrage", "blake3"}
    assert foreign <= imported <= foreign | sys.stdlib_module_names


@pytest.fixture(scope="module")
def server() -> Any:
    """A PostgreSQL for this file."""
    with host_postgres() as running:
        yield running


def pg_dump(server: HostPostgres, database: str) -> list[str]:
    """Everything in a database as text, without pg_dump's random restrict key."""
    command = [server.bin / "pg_dump", "--no-owner", "--no-privileges"]
    env = server.environment(database)
    text = subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout
    return [line for line in text.splitlines() if not line.startswith(("\\restrict", "\\unrestrict"))]


def test_what_the_script_restores_is_the_original_database(server: HostPostgres, tmp_path: Path) -> None:
    """By the commands it prints, with nothing but PostgreSQL's own programs."""
    server.sql("CREATE DATABASE original")
    server.sql("CREATE DATABASE restored")
    for statements in ("database.sql", "change.sql"):
        server.sql((GOLDEN.parent / statements).read_text(), "original")
    output = tmp_path / "it's here"
    done = run_script(GOLDEN / "chain", SECOND, output)
    assert done.returncode == 0, done.stderr
    command = done.stdout.splitlines()[-1].partition("database: ")[2].partition(" 'host=")[0]
    loading = subprocess.run(
        ["sh", "-c", f"{command} dbname=restored"],
        env=server.environment("nowhere"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (loading.returncode, loading.stdout, loading.stderr) == (0, "", "")
    assert pg_dump(server, "restored") == pg_dump(server, "original")


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_what_was_left_out_does_not_keep_the_script_from_restoring(
    server: HostPostgres, tmp_path: Path, encoding: str
) -> None:
    """A column, the rows of a table that others point to; in a database whose names are not UTF-8."""
    for name in ("partly", "partly_restored"):
        server.sql(f"DROP DATABASE IF EXISTS {name}")
        server.sql(f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0")
    # To a database without an encoding our UTF-8 is bytes, and it calls each of them a character.
    client, table = (
        ("UTF8", "tür") if encoding == "LATIN1" else ("SQL_ASCII", "tür".encode().decode("latin-1"))
    )
    say = f"SET client_encoding = '{client}';"
    server.sql(say + PARTLY, "partly")
    chain, identity = Chain(tmp_path / "lab"), pyrage.x25519.Identity.generate()
    chain.write_keys()
    for secret in ("database", "admin"):
        chain.write_secret(secret, {"username": "postgres", "password": PASSWORD})
    job = jobs.Backup(
        uid="1",
        backup_id=BACKUP_ID,
        name="acme-1",
        tenant=jobs.Tenant("cluster", "default", "acme", "acme"),
        database=jobs.Database("PostgreSQL", "127.0.0.1", server.port, "partly", tls_mode="Disable"),
        store=jobs.Store("volume"),
        recipients=[str(identity.to_public())],
        exclude_tables=["public.parent"],
        exclude_columns=[jobs.Column(f"public.{table}", "secret", "Null")],
    )
    assert {stage: ended.result for stage, ended in chain.run(job).items() if ended.code} == {}
    told = {"identity": str(identity), "key": f"ed25519:{chain.signing_key}"}
    done = run_script(tmp_path / "lab" / "store" / "acme", BACKUP_ID, tmp_path / "out", **told)
    assert (done.returncode, done.stderr) == (0, "")
    assert "not in the backup: public.t" in done.stdout and ".secret" in done.stdout
    command = ["sh", str(tmp_path / "out" / "load.sh"), "dbname=partly_restored"]
    loading = subprocess.run(
        command, env=server.environment("nowhere"), capture_output=True, text=True, check=False
    )
    assert (loading.returncode, loading.stderr) == (0, "")
    found = f"{say} SELECT id, secret IS NULL, name = ('Grüß') FROM \"tür\"; SELECT count(*) FROM parent;"
    assert server.sql(found, "partly_restored") == "7|t|t\n0"
    key = "SELECT convalidated FROM pg_constraint WHERE contype = 'f'"
    assert server.sql(key, "partly_restored") == "f"


def flip(path: Path) -> None:
    """Change one bit in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def newer(path: Path) -> None:
    """Say that a later program wrote it."""
    path.write_bytes(path.read_bytes().replace(b'"formatVersion":1', b'"formatVersion":2'))


@pytest.mark.parametrize(
    ("damage", "pattern", "code", "said"),
    [
        (flip, "packs/*/*", script.DAMAGED, "its SHA-256 is not the manifest's"),
        (flip, "lists/*", script.DAMAGED, "its SHA-256 is not the manifest's"),
        (Path.unlink, "packs/*/*", script.DAMAGED, "is missing"),
        (Path.unlink, "manifests/*", script.DAMAGED, "is missing"),
        (
            lambda path: path.write_bytes(path.read_bytes()[:-1]),
            "packs/*/*",
            script.DAMAGED,
            "another length",
        ),
        (flip, "keys/*", script.WRONG_KEY, "no identity opens key"),
        (flip, "manifests/*", script.UNTRUSTED, "was not signed by"),
        (newer, "manifests/*", script.UNSUPPORTED, "newer version"),
    ],
)
def test_the_script_says_what_is_wrong_with_an_archive(
    folder: Folder, tmp_path: Path, damage: Callable[[Path], Any], pattern: str, code: int, said: str
) -> None:
    """In one line that names the object; without load.sh nothing looks complete."""
    shutil.copytree(GOLDEN / "full", folder.root, dirs_exist_ok=True)
    (path,) = folder.root.glob(pattern)
    damage(path)
    output = tmp_path / "restored"
    done = run_script(folder.root, FIRST, output)
    assert (done.returncode, done.stderr.count("\n")) == (code, 1), done.stderr
    assert said in done.stderr
    assert path.name.split(".")[0] in done.stderr
    assert not (output / "load.sh").exists()


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({"identity": SECRETS["newIdentity"]}, script.WRONG_KEY, "no identity opens key"),
        ({"identity": "-"}, script.WRONG_KEY, "no identity opens key"),
        ({"identity": "AGE-SECRET-KEY-1NOTHING"}, script.WRONG_KEY, "no age key"),
        ({"key": f"ed25519:{'1' * 64}"}, script.UNTRUSTED, "was not signed by"),
        ({"key": "ed25519:no"}, script.UNTRUSTED, "was not signed by"),
        ({"key": SECRETS["signingKey"]}, script.USAGE, "python restore.py FOLDER"),
    ],
)
def test_the_script_says_what_is_wrong_with_a_call(
    tmp_path: Path, changes: dict[str, str], code: int, said: str
) -> None:
    """And never shows an identity."""
    done = run_script(GOLDEN / "full", FIRST, tmp_path / "restored", **changes)
    assert done.returncode == code
    assert said in done.stderr
    assert "SECRET-KEY-1" not in done.stderr.replace("AGE-SECRET-KEY-1…", "")


def test_the_script_refuses_a_manifest_of_another_name(folder: Folder, tmp_path: Path) -> None:
    """A replay: genuine, older."""
    shutil.copytree(GOLDEN / "chain", folder.root, dirs_exist_ok=True)
    shutil.copy(folder.root / names.manifest(FIRST), folder.root / names.manifest(SECOND))
    done = run_script(folder.root, SECOND, tmp_path / "restored")
    assert (done.returncode, "somebody moved it" in done.stderr) == (script.UNTRUSTED, True)


def test_the_script_overwrites_nothing(tmp_path: Path) -> None:
    """A folder that holds something else."""
    (tmp_path / "restored").mkdir()
    (tmp_path / "restored" / "schema.dump").write_text("precious")
    assert run_script(GOLDEN / "full", FIRST, tmp_path / "restored").returncode == script.USAGE
    assert (tmp_path / "restored" / "schema.dump").read_text() == "precious"
