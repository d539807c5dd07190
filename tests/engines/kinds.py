"""What generated schemas are made of: types with values of theirs, and names that somebody forgot to quote."""

from __future__ import annotations

from dataclasses import dataclass

NAMES = ("plain", "Upper Case", 'quo"te', "it's", "dot.ted", "back\\slash", "ünï", "日本", "select", "per%cent", "d$llar", "semi;colon", ":colon", "a--b", "/*c*/", "x" * 55, "{brace}", "tab\there")  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """A type, and an SQL expression of `i` that makes values of it."""

    sql: str
    value: str
    key: bool = False  # has a btree order, and the values are as many as `i`


KINDS = (
    Kind("int", "i", key=True),
    Kind("bigint", "i * 4000000000", key=True),
    Kind("smallint", "(i % 100)::int2"),
    Kind("numeric(20, 5)", "i / 7.0", key=True),
    Kind("numeric", "CASE i % 4 WHEN 0 THEN 'NaN' WHEN 1 THEN '-Infinity' ELSE i * 1e40 / 3 END"),
    Kind("real", "i / 3.0"),
    Kind("double precision", "exp(i)", key=True),
    Kind("text", "E'\\t\\\\N\\n' || chr(i + 200) || i", key=True),
    Kind("varchar(40)", "repeat('v', i % 9) || i", key=True),
    Kind("char(5)", "i::text"),
    Kind('"char"', "'x'"),
    Kind("name", "'n' || i"),
    Kind("bytea", "decode(md5(i::text), 'hex')", key=True),
    Kind("boolean", "i % 2 = 0"),
    Kind("date", "date '2024-02-28' + i", key=True),
    Kind("timestamp(3)", "timestamp '1999-12-31 23:59:59.9996' + i * interval '1 s'", key=True),
    Kind("timestamptz", "timestamptz '2024-03-31 00:59:59+00' + i * interval '1 h'", key=True),
    Kind("time", "time '23:59:59.999999' - i * interval '1 s'"),
    Kind("timetz", "timetz '12:00:00+05:45'"),
    Kind("interval", "i * interval '1 mon -1 day 00:00:00.5'"),
    Kind("interval year to month", "make_interval(months => i)"),
    Kind("uuid", "md5(i::text)::uuid", key=True),
    Kind("inet", "'10.0.0.0'::inet + i", key=True),
    Kind("cidr", "set_masklen('10.0.0.0'::cidr, 8 + i % 3)"),
    Kind("macaddr8", "'08:00:2b:01:02:03:04:05'"),
    Kind("json", "json_build_object('ä', i, 'b', NULL)"),
    Kind("jsonb", "jsonb_build_array(i, 'x', NULL, repeat('y', i))"),
    Kind("xml", "('<a b=\"' || i || '\">&amp;</a>')::xml"),
    Kind("bit(7)", "i::bit(7)"),
    Kind("bit varying", "i::bit(6)::varbit"),
    Kind("point", "point(i, i / 3.0)"),
    Kind("box", "box(point(i, 0), point(0, i))"),
    Kind("circle", "circle(point(0, 0), i)"),
    Kind("tsvector", "to_tsvector('simple', 'word' || i || ' and more')"),
    Kind("tsquery", "plainto_tsquery('simple', 'word' || i)"),
    Kind("int4range", "int4range(i, i + 5)"),
    Kind("datemultirange", "datemultirange(daterange('2024-01-01', date '2024-01-02' + i))"),
    Kind("int[]", "ARRAY[i, NULL, -i]"),
    Kind("text[][]", "ARRAY[ARRAY['a,b', NULL], ARRAY['\"', i::text]]"),
    Kind("oid", "i::oid"),
    Kind("regtype", "'int4'::regtype"),
    Kind("money", "(i * 1.5)::numeric::money"),
    Kind("pg_lsn", "'16/B374D848'"),
    Kind("txid_snapshot", "'10:20:10,14,15'"),
    Kind("jsonpath", "'$.a[*] ? (@ > 1)'"),
)


def quoted(*parts: str) -> str:
    """Return a quoted, qualified name."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in parts)


def text(value: str) -> str:
    """Return a string literal."""
    return "'" + value.replace("'", "''") + "'"
