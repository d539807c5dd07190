"""The parts of docs/FORMAT.md that are computed: the example and the costs.

`python -m tests.archive.format_page` writes them into the page; test_format_page.py finds it out of date.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from math import ceil
from pathlib import Path

import pyrage

from hack.lab.kubectl import ROOT
from tenant_backup.archive import chunks, known, names, writer
from tenant_backup.archive.frame import Kind
from tenant_backup.archive.keys import IndexKey, derive, recipient_set, wrapped_id
from tenant_backup.archive.lists import chunk_id, decode_catalogue, decode_chunks, part_id
from tenant_backup.archive.manifest import verify
from tenant_backup.archive.pack import Binding, PackKind, PackReader
from tests.archive.golden.make import SECOND

PAGE = ROOT / "docs" / "FORMAT.md"
GOLDEN = Path(__file__).parent / "golden" / "v1"
_TABLE = "public.part_2024"  # of the example: a few rows


def example() -> str:
    """Take the second backup of the golden chain apart."""
    secrets = json.loads((GOLDEN / "keys.json").read_text())
    folder = GOLDEN / "chain"
    data = (folder / names.manifest(SECOND)).read_bytes()
    manifest = verify(data, secrets["signingKey"])
    index = IndexKey(bytes.fromhex(secrets["indexKey"]))
    identity = pyrage.x25519.Identity.from_str(secrets["identity"])
    place = manifest.catalogue
    with closing(_open(folder, PackKind.INDEX, place.list, index)) as pack:
        catalogue = decode_catalogue(
            b"".join(pack.frame(place.first + number) for number in range(place.frames))
        )
        ((segment_id, segment),) = [one for one in catalogue.segments.items() if one[1].table == _TABLE]
        (part,) = segment.parts
        listed = pack.frame(part.frame)
    assert part_id(decode_chunks(listed), index) == part.id
    recipient = str(identity.to_public())
    lines = [
        f"backup              {SECOND}",
        f"identity            {secrets['identity']}",
        f"recipient           {recipient}",
        f"recipientSet        {recipient_set([recipient])}",
        f"index key           {index.secret.hex()}",
        f"key id              {index.key_id}",
        f"of not encrypted    {index.unencrypted().secret.hex()}",
        f"chunk-id key        {index.chunk_id_key().hex()}",
        f"part-id key         {derive(index.secret, 'part id').hex()}",
        f"chunker seed        {chunks.chunker_seed(index)}",
        "",
        f"segment {segment_id}, {segment.table}: part {part.id}",
        f"in {names.index_pack(part.list)}, frame {part.frame}",
        f"  frame key         {index.frame_key(part.list).hex()}",
        f"  number of packs   {listed[:4].hex()}",
        f"  pack id           {listed[4:20].hex()}",
        f"  number of chunks  {listed[20:24].hex()}",
        f"  chunk id          {listed[24:56].hex()}",
        f"  pack frame offset length  {' '.join(listed[at : at + 4].hex() for at in range(56, 72, 4))}",
    ]
    return "\n".join([*lines, *_pack_lines(folder, listed, index, identity), *_signature_lines(data)])


def _pack_lines(folder: Path, listed: bytes, index: IndexKey, identity: pyrage.x25519.Identity) -> list[str]:
    pack_id, number = listed[4:20].hex(), struct.unpack(">I", listed[60:64])[0]
    raw = (folder / names.pack(pack_id)).read_bytes()
    wrapped_length, footer_length = struct.unpack(">II", raw[-16:-8])
    wrapped = raw[-16 - footer_length - wrapped_length : -16 - footer_length]
    data_key = bytes(pyrage.decrypt(wrapped, [identity]))
    frame_key = derive(data_key, "pack", bytes.fromhex(pack_id))
    with closing(_open(folder, PackKind.DATA, pack_id, index, frame_key)) as pack:
        entries, plain = pack.frames, pack.frame(number)
    start = 32 + sum(frame.sealed for frame in entries[:number])
    frame = entries[number]
    cipher = Binding(PackKind.DATA, pack_id, "acme", index).cipher(frame_key)
    compressed = cipher.open(number, frame.kind, frame.plain, raw[start : start + frame.sealed])
    bound = partial(_bound, bytes.fromhex(pack_id))
    footer = _footer(raw, pack_id, index)
    chunks_at = 36 + 13 * len(entries)
    assert chunk_id(plain, index.chunk_id_key()) == listed[24:56]
    return [
        "",
        f"{names.pack(pack_id)}: {len(raw)} bytes",
        f"  header            {raw[:8].hex()} {raw[8:9].hex()} {raw[9:16].hex()} {raw[16:32].hex()}",
        f"  data key          {data_key.hex()}",
        f"  wrappedId         {wrapped_id(wrapped)}",
        f"  frame key         {frame_key.hex()}",
        f"  frame {number}           at {start}, {frame.sealed} bytes",
        f"    nonce           {number.to_bytes(12, 'big').hex()}",
        f"    associated data {bound(number, frame.kind, frame.plain)}",
        f"    zstd frame      {compressed.hex()}",
        f"    plaintext       {plain!r}"[:110].replace("b'", "'"),
        f"  wrapped key       at {len(raw) - 16 - footer_length - wrapped_length}, {wrapped_length} bytes",
        f"  footer key        {index.footer_key(pack_id).hex()}",
        f"  associated data   {bound(0, Kind.FOOTER, len(footer))}",
        f"  footer            {footer[:32].hex()} {footer[32:36].hex()}",
        *(
            f"    frame {n}         {_spaced(footer[36 + 13 * n :][:13], 1, 4, 4, 4)}"
            for n in range(len(entries))
        ),
        f"    first chunk     {_spaced(footer[chunks_at : chunks_at + 36], 32, 4)}",
        f"  trailer           {_spaced(raw[-16:], 4, 4, 8)}",
    ]


def _signature_lines(data: bytes) -> list[str]:
    signed = b"tenantbackup.dev/v1/manifest\0" + data[:-145]
    return [
        "",
        f"manifests/{SECOND}: {len(data)} bytes",
        f"  bytes 0 to {len(data) - 146}   {data[:28].decode()}…{data[-176:-145].decode()}",
        f"  last 145 bytes    {data[-145:-1].decode()}\\n",
        f"  signed            {signed[:28].hex()} 00 || bytes 0 to {len(data) - 146}: {len(signed)} bytes",
        f"  SHA-256 of that   {hashlib.sha256(signed).hexdigest()}",
        f"  public key        {json.loads((GOLDEN / 'keys.json').read_text())['signingKey']}",
    ]


def _open(
    folder: Path, kind: PackKind, pack_id: str, index: IndexKey, key: bytes | None = None
) -> PackReader:
    name = names.pack(pack_id) if kind is PackKind.DATA else names.index_pack(pack_id)
    binding = Binding(kind, pack_id, "acme", index)
    return PackReader(folder / name, binding, lambda _: key or index.frame_key(pack_id))


def _footer(raw: bytes, pack_id: str, index: IndexKey) -> bytes:
    (length,) = struct.unpack(">I", raw[-12:-8])
    cipher = Binding(PackKind.DATA, pack_id, "acme", index).footer_cipher()
    return cipher.open(0, Kind.FOOTER, length - 16, raw[-16 - length : -16])


def _bound(pack_id: bytes, number: int, kind: int, length: int) -> str:
    context = b"tenantbackup.dev/v1/frame"
    numbers = f"{number:08x} {kind:02x} {length:08x}"
    return f"{context.hex()} 00 {b'acme'.hex()} 00\n{' ' * 20}{pack_id.hex()} {numbers}"


def _spaced(data: bytes, *lengths: int) -> str:
    at, found = 0, []
    for length in lengths:
        found.append(data[at : at + length].hex())
        at += length
    return " ".join(found)


# What it costs. Every number is a constant of the code, or measured by test_format_page.py within 10 %.

CHUNK = chunks.CHUNK_MIN + (16 << 10)  # bytes: behind the minimum every 16 Ki-th byte is a cut
FRAME = chunks.FRAME_MAX - chunks.CHUNK_MAX + CHUNK / 2  # bytes of plaintext: what is not cut yet stays
LIST_ENTRY = 40.5  # bytes of a chunk in a list, compressed
FOOTER_ENTRY, FRAME_ENTRY = 36, 13 + 16  # bytes: in the footer; and the frame's tag
PACK_FIXED = 32 + 280 + 32 + 4 + 16 + 16  # bytes: header, key for one recipient, footer, trailer
MANIFEST, MANIFEST_REF = 1050, 153  # bytes, and of each pack or list
SEGMENT, SEGMENT_ENTRY = 128 << 20, 47  # bytes of rows, and in the catalogue, compressed
CATALOGUE = 10_000  # bytes of what does not grow with the rows: tables, columns, definitions
KNOWN_ENTRY = known._ENTRY.size  # bytes of the known-chunk index, on disk
LISTED = 1000  # names in one answer of a store
COLLECTOR_NAME = 780  # bytes of memory of the collector for each object that the largest manifest names


@dataclass(frozen=True)
class Costs:
    """Of one backup of `logical` bytes whose frames have `stored` bytes; sizes in bytes."""

    logical: float
    stored: float

    @property
    def chunks(self) -> int:
        """Chunks."""
        return ceil(self.logical / CHUNK)

    @property
    def frames(self) -> float:
        """Frames."""
        return self.logical / FRAME

    @property
    def packs(self) -> int:
        """Data packs: each ends with the frame that reaches the target, so half a frame behind it."""
        return ceil(self.stored / (writer.PACK_TARGET + self.stored / self.frames / 2))

    @property
    def list_bytes(self) -> float:
        """Chunk lists."""
        return self.chunks * LIST_ENTRY

    @property
    def lists(self) -> int:
        """Index packs: each ends with the part that reaches the target."""
        part = writer.PART_CHUNKS * LIST_ENTRY
        return ceil(self.list_bytes / (writer._INDEX_PACK_TARGET + part / 2))

    @property
    def footer_bytes(self) -> float:
        """Everything in data packs that is not rows."""
        return self.chunks * FOOTER_ENTRY + self.frames * FRAME_ENTRY + self.packs * PACK_FIXED

    @property
    def manifest(self) -> float:
        """The manifest."""
        return MANIFEST + (self.packs + self.lists) * MANIFEST_REF

    @property
    def catalogue(self) -> float:
        """Definitions and catalogue."""
        return CATALOGUE + self.logical / SEGMENT * SEGMENT_ENTRY

    @property
    def known(self) -> int:
        """The index of known chunks, in the spool of the next backup."""
        return self.chunks * KNOWN_ENTRY


def repeat_gets(lists: int) -> int:
    """Return how many objects an unchanged repeat asks for: marker, the next one, base, lists, own manifest."""
    return 4 + lists


def repeat_lists(packs: int) -> int:
    """Return how many answers with names it needs: nine short ones, and twice those of packs."""
    return 9 + 2 * ceil(packs / LISTED)


def costs() -> str:
    """Return the table of the page."""
    rows = [
        ("of a database of", "1 GB", "100 GB", "1 TB"),
        ("chunks", "{:,}", lambda c: _round(c.chunks)),
        ("data packs", "{:,}", lambda c: c.packs),
        ("index packs", "{:,}", lambda c: c.lists),
        ("footers and the like", "{}", lambda c: _size(c.footer_bytes)),
        ("chunk lists", "{}", lambda c: _size(c.list_bytes)),
        ("manifest", "{}", lambda c: _size(c.manifest)),
        (
            "all metadata, of what is stored",
            "{:.2%}",
            lambda c: (c.footer_bytes + c.list_bytes + c.catalogue) / c.stored,
        ),
        ("PUT of a full backup (the first: 2 more)", "{:,}", lambda c: c.packs + c.lists + 1),
        ("PUT of an unchanged repeat", "{}", lambda c: 3),
        ("GET of an unchanged repeat", "{:,}", lambda c: repeat_gets(c.lists)),
        ("LIST of an unchanged repeat", "{:,}", lambda c: repeat_lists(c.packs)),
        ("bytes fetched by it", "{}", lambda c: _size(c.list_bytes + c.manifest)),
        ("bytes stored by it", "{}", lambda c: _size(c.catalogue + c.manifest)),
        (f"known chunks on disk, {KNOWN_ENTRY} bytes each", "{}", lambda c: _size(c.known)),
        ("known chunks, buffers in memory", "{}", lambda c: _size(min(c.known, known._HELD))),
        (
            f"collector in memory, {COLLECTOR_NAME} bytes a name",
            "{}",
            lambda c: _size((c.packs + c.lists) * COLLECTOR_NAME),
        ),
    ]
    sizes = [Costs(size, size / 3) for size in (1e9, 1e11, 1e12)]
    head, *lines = rows
    table = [f"| {' | '.join(head)} |", "|---|---|---|---|"]
    for name, form, value in lines:
        table.append(f"| {name} | {' | '.join(form.format(value(size)) for size in sizes)} |")
    return "\n".join(table)


def _round(number: float) -> int:
    """Two digits are enough."""
    return int(float(f"{number:.1e}"))


def _size(number: float) -> str:
    for unit in ("B", "kB", "MB"):
        if number < 999:
            return f"{float(f'{number:.2g}'):g} {unit}"
        number /= 1000
    return f"{float(f'{number:.2g}'):g} GB"


def filled(page: str) -> str:
    """Return the page with both parts as they should be."""
    for name, text in (("example", f"```\n{example()}\n```"), ("costs", costs())):
        page, count = re.subn(
            rf"(<!-- {name}: computed -->\n).*?(<!-- end -->)",
            lambda found, text=text: f"{found[1]}{text}\n{found[2]}",
            page,
            flags=re.DOTALL,
        )
        if count != 1:
            raise ValueError(f"the page has {count} places for {name}")
    return page


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text()))
