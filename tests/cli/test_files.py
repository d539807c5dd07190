"""Files and the command line: backed up from folders, restored into them, handed out, shown."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shlex
import stat
import struct
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pyrage
import pytest

from hack.lab.kubectl import ROOT
from tenant_backup.archive import manifest as manifests
from tenant_backup.archive.lists import Catalogue
from tenant_backup.cli import backing_up, inspecting, restoring, volumes
from tenant_backup.cli.chosen import Chosen
from tenant_backup.contract.reasons import Failure, Reason
from tests.cli.conftest import COMMAND, Owner, into, run
from tests.cli.test_page import marked
from tests.decisions.objects import tenant
from tests.engines.trees import described, grow, volume

GOLDEN = ROOT / "tests/archive/golden/v1/chain/manifests"
FILES = manifests.Files(7, 700, 2, 1, "2024-01-15T14:30:26Z", "2024-01-15T14:31:00Z")
UPLOADS = {
    "name": "uploads",
    "persistentVolumeClaim": {"claimName": "acme-uploads"},
    "securityContext": {"runAsUser": 1000, "runAsGroup": 1000},
}
VOLUME = {
    "name": "uploads",
    "segments": ["files/uploads/0"],
    "files": 7,
    "bytes": 700,
    "changed": {"count": 2, "paths": ["a", "b"]},
    "skipped": {"count": 1, "paths": ["pipe"]},
    "modules": [{"name": "hr", "files": 3, "bytes": 30}],
}


def manifest(**changes: Any) -> manifests.Manifest:
    """A backup that was made before there were files, with changes."""
    newest = max(GOLDEN.iterdir())
    return dataclasses.replace(manifests.parse(newest.read_bytes()), **changes)


def chosen(found: manifests.Manifest) -> Chosen:
    """It, to work with; nothing of the store is looked at."""
    return Chosen(None, found, "", "", None, "")  # type: ignore[arg-type]


def test_a_manifest_without_a_word_about_files_has_none() -> None:
    """And is of all that the tenant had."""
    found = manifest()
    assert (found.contents, found.files) == ("All", manifests.NO_FILES)
    assert "files" not in manifests.facts(found, "")
    assert manifests.facts(manifest(files=FILES), "")["files"] == {"count": 7, "changed": 2, "skipped": 1}


def test_inspect_tells_of_files_beside_tables_or_alone() -> None:
    """How many, from when, by volume, and what is not as it should be."""
    catalogue = Catalogue({"tables": [], "files": [VOLUME]}, {})
    both = inspecting.in_words(manifest(files=FILES), "", "good", catalogue)
    assert "7 files (2 changed while they were read)" in both
    assert "Rows are from" in both
    assert ["uploads", "7", "700", "B", "2", "1"] in map(str.split, both.splitlines())
    assert both.splitlines()[-1].split() == ["hr", "uploads", "3", "30", "B"]
    alone = inspecting.in_words(manifest(files=FILES, server=manifests.Server("", "")), "", "good", None)
    assert "Rows are from" not in alone
    assert "Files read: 2024-01-15T14:30:26Z to 2024-01-15T14:31:00Z" in " ".join(alone.split())
    shown = {key: value for key, value in VOLUME.items() if key != "segments"}
    assert inspecting.described(manifest(files=FILES), "", "good", catalogue)["volumeList"] == [shown]


def test_what_nobody_asked_for_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """And a backup of files alone is refused where a database is wanted, with a way out."""
    chosen(manifest()).say_left_out(files=True)
    assert capsys.readouterr().err == ""
    both = chosen(manifest(files=FILES))
    both.say_left_out(files=True)
    assert "7 files are left out" in capsys.readouterr().err
    both.say_left_out(rows=True)
    assert "tables are left out" in capsys.readouterr().err
    with pytest.raises(Failure, match="--files") as caught:
        chosen(manifest(files=FILES, server=manifests.Server("", ""))).require_engine()
    assert caught.value.reason is Reason.UNSUPPORTED_CONTENT
    with pytest.raises(Failure, match="has no files"):
        restoring._volumes(chosen(manifest()))


def test_each_of_the_tenants_files_has_a_folder_or_none(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """None is a backup of the database; of a Tenant without one it is an error."""
    both, alone = tenant(more={"files": [UPLOADS]}), tenant(more={"database": None, "files": [UPLOADS]})
    assert backing_up.folders(both, []) == {}
    assert "contents: Database" in capsys.readouterr().err
    for given in ([f"uploads={tmp_path}"], [f"uploads={tmp_path}/."]):
        assert backing_up.folders(both, given) == {"uploads": tmp_path}
    wrong = [[f"other={tmp_path}"], [f"uploads={tmp_path}"] * 2, [f"uploads={tmp_path}", "other=/"]]
    for given in wrong:
        with pytest.raises(Failure, match="has to name each"):
            backing_up.folders(both, given)
    with pytest.raises(Failure, match="has to name each"):
        backing_up.folders(alone, [])
    with pytest.raises(Failure, match="there is no folder"):
        backing_up.folders(alone, ["uploads=/nowhere"])
    with pytest.raises(Failure, match="leave --files out"):
        backing_up.folders(tenant(), ["uploads=/"])


@dataclasses.dataclass
class Site:
    """A tenant of files alone, with one backup by the command line."""

    folder: Path
    uploads: Path
    trust: str

    @property
    def url(self) -> str:
        """STORE-URL."""
        return f"file://{self.folder}/store/acme"

    def call(self, command: str, *options: str | Path, code: int = 0) -> Any:
        """Run a command that reads backups; return its JSON."""
        who = ["--identity", self.folder / "key.txt", "--trust", self.trust, "--json"]
        done = run(command, self.url, "latest", *who, *options)
        assert done.returncode == code, done.stderr
        return json.loads(done.stderr.splitlines()[-1] if code else done.stdout)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Files of every kind, and names that a ZIP or sha256sum cannot have as they are."""
    folder = tmp_path_factory.mktemp("files")
    identity = pyrage.x25519.Identity.generate()
    (folder / "key.txt").write_text(f"{identity}\n")
    uploads = folder / "uploads"
    uploads.mkdir()
    grow(uploads, 3)
    (uploads / "back\\slash\nline").write_bytes(b"odd")
    Path(os.fsdecode(os.fsencode(uploads) + b"/\xff")).write_bytes(b"no UTF-8")
    (uploads / "%FF").write_bytes(b"taken")
    os.link(uploads / "%FF", uploads / "%FF again")
    (uploads / "link").symlink_to("../..")
    with (uploads / "disk.img").open("wb") as file:
        file.truncate(3 << 20)
    spec = {"files": [UPLOADS], "encryption": {"recipients": [str(identity.to_public())]}}
    document = {
        "apiVersion": "tenantbackup.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": "acme"}, "spec": spec
    }  # fmt: skip
    (folder / "tenant.yaml").write_text(json.dumps(document))
    (folder / "store").mkdir()
    where = ["--store-url", f"file://{folder}/store/acme", "--config", folder / "tenant.yaml"]
    done = run("backup", *where, "--files", f"uploads={uploads}", "--json")
    assert done.returncode == 0, done.stderr
    return Site(folder, uploads, json.loads(done.stdout)["trust"])


def test_files_come_back_into_an_empty_folder(site: Site, tmp_path: Path) -> None:
    """As they were, and nothing of ours with them; what is not empty is not touched."""
    done = site.call("restore", "--files", tmp_path / "out")
    (volume,) = done["volumes"]
    assert (volume["path"], "database" in done) == (str(tmp_path / "out" / "uploads"), False)
    assert described(tmp_path / "out" / "uploads") == described(site.uploads)
    assert not (tmp_path / "out" / "uploads" / ".tenant-backup").exists()
    for taken in (tmp_path / "out", tmp_path):
        refused = site.call("restore", "--files", taken, code=1)
        assert refused["error"]["reason"] == "NameTaken"
    assert described(tmp_path / "out" / "uploads") == described(site.uploads)


def test_a_folder_has_files_as_they_were_and_their_sums(site: Site, tmp_path: Path) -> None:
    """Links and holes too; sha256sum finds each of them, whatever its name."""
    done = site.call("export", "--format", "directory", "-o", tmp_path / "out")
    assert done["files"] == sum(entry[4] is not None for entry in described(site.uploads).values())
    assert described(tmp_path / "out" / "files" / "uploads") == described(site.uploads)
    checked = subprocess.run(
        ["sha256sum", "--strict", "-c", "SHA256SUMS"], cwd=tmp_path / "out", capture_output=True, check=False
    )
    assert checked.returncode == 0, checked.stderr
    regular = [path for path in (tmp_path / "out").rglob("*") if path.is_file() and not path.is_symlink()]
    assert len(checked.stdout.splitlines()) == len(regular) - 1
    (volume,) = json.loads((tmp_path / "out" / "metadata.json").read_bytes())["volumes"]
    assert (volume["name"], "segments" in volume) == ("uploads", False)
    assert site.call("inspect")["volumeList"] == [volume]


def test_a_zip_has_what_a_zip_can_hold(site: Site, tmp_path: Path) -> None:
    """Every name, UTF-8 by now, with its mode and time; what cannot be is another file, or zeros."""
    site.call("export", "--format", "zip", "-o", tmp_path / "out.zip")
    before = described(site.uploads)
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert archive.testzip() is None
        found = {info.filename: info for info in archive.infolist()}
        assert len(found) == len(archive.infolist()) == len(before) + 3
        assert archive.read("files/uploads/%FF") == b"taken"
        assert archive.read("files/uploads/%FF_") == b"no UTF-8"
        assert archive.read("files/uploads/%FF again") == b"taken"
        assert archive.read("files/uploads/link") == b"../.."
        assert archive.read("files/uploads/disk.img") == bytes(3 << 20)
        for path, (mode, _, _, mtime, *_) in before.items():
            name = "files/uploads/" + path.decode("utf-8", "surrogateescape")
            info = found.get(name) or found.get(name + "/")
            if info is None:
                assert not path.isascii()
                continue
            assert info.external_attr >> 16 == mode
            if 0 <= mtime < 2**31 * 10**9:
                assert struct.unpack("<2sHBi", info.extra[:9])[3] == mtime // 10**9
        sums = archive.read("SHA256SUMS")
        for info in archive.infolist():
            if info.is_dir() or stat.S_ISLNK(info.external_attr >> 16) or info.filename == "SHA256SUMS":
                continue
            assert volumes.sum_line(info.filename, hashlib.sha256(archive.read(info)).hexdigest()) in sums


def test_database_and_files_come_back_together(own_owner: Owner, tmp_path: Path) -> None:
    """Both at once, or both in one folder."""
    uploads = own_owner.folder / "files" / "uploads"
    uploads.mkdir(parents=True)
    grow(uploads, 4)
    own_owner.back_up(1, files=[volume("uploads")])
    copy, rows = f"{own_owner.database}_both", "SELECT count(*) FROM employee"
    done = run(*into(own_owner, copy), "--files", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    assert own_owner.server.sql(rows, copy) == own_owner.server.sql(rows, own_owner.database)
    assert described(tmp_path / "out" / "uploads") == described(uploads)
    where = ["--format", "directory", "-o", tmp_path / "both"]
    done = run("export", own_owner.url, "latest", *own_owner.reading, *where)
    assert done.returncode == 0, done.stderr
    assert described(tmp_path / "both" / "files" / "uploads") == described(uploads)
    assert [path.suffix for path in (tmp_path / "both").glob("*.sql")] == [".sql"]


def test_sql_of_a_backup_without_a_database_is_refused(site: Site) -> None:
    """With what would work."""
    assert "--format zip" in site.call("export", code=1)["error"]["message"]


def test_the_commands_of_the_page_work_for_files(site: Site, tmp_path: Path) -> None:
    """In the order of the page."""
    program = tmp_path / "bin" / "tenant-backup"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {" ".join(map(shlex.quote, COMMAND))} "$@"\n')
    program.chmod(0o755)
    for name in ("key.txt", "tenant.yaml", "tenant.keys.yaml", "uploads"):
        (tmp_path / name).symlink_to(site.folder / name)
    path = f"{program.parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "STORE": site.url, "TRUST": site.trust}
    blocks = marked("files")
    for block in blocks:
        done = subprocess.run(
            ["bash", "-euc", block],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{block}\n{done.stderr}"
    assert len(blocks) == 2
    assert described(tmp_path / "acme-files" / "uploads") == described(site.uploads)
