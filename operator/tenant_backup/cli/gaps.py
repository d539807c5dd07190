"""Excluded columns in a script: what a restore puts into them, said in SQL because nobody is connected.

The same rules as engines.postgresql.excluded without a live database: the column's default becomes the wished
value while rows come in; afterwards default and NOT NULL are as they were, where the rows allow it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tenant_backup.engines.postgresql.names import literal, quoted

_BEGIN = """CREATE TEMPORARY TABLE tenant_backup_gaps (
  target regclass, wanted text, rule text, value text,
  kept text, required boolean, top regclass, declared text);
INSERT INTO pg_temp.tenant_backup_gaps (target, wanted, rule, value) VALUES
  {gaps};"""

_OPEN = """DO $$
DECLARE
  gap record;
BEGIN
  UPDATE pg_temp.tenant_backup_gaps SET kept = pg_get_expr(d.adbin, d.adrelid), required = a.attnotnull
  FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
  WHERE a.attrelid = target AND a.attname = wanted;
  DELETE FROM pg_temp.tenant_backup_gaps USING pg_attribute a
  WHERE a.attrelid = target AND a.attname = wanted AND (a.attidentity <> '' OR rule = 'Default'
    OR (rule = 'KeepLive' AND value IS NULL AND required AND kept IS NOT NULL));
  UPDATE pg_temp.tenant_backup_gaps g SET required = required AND value IS NULL, top = (
    -- NOT NULL of a partition belongs to the table on top of it.
    WITH RECURSIVE up (oid) AS (
      SELECT g.target::oid UNION SELECT i.inhparent FROM pg_inherits i JOIN up ON i.inhrelid = up.oid
      WHERE EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = i.inhparent AND a.attname = g.wanted))
    SELECT up.oid FROM up
    WHERE NOT EXISTS (SELECT FROM pg_inherits i JOIN up p ON p.oid = i.inhparent WHERE i.inhrelid = up.oid)
    LIMIT 1);
  -- From version 18 on NOT NULL is a constraint with a name.
  UPDATE pg_temp.tenant_backup_gaps g SET declared = coalesce((
    SELECT format('ADD CONSTRAINT %I ', k.conname) || pg_get_constraintdef(k.oid) FROM pg_constraint k
    JOIN pg_attribute a ON a.attrelid = k.conrelid AND k.conkey = ARRAY[a.attnum]
    WHERE k.contype = 'n' AND k.conrelid = g.top AND a.attname = g.wanted),
    format('ALTER COLUMN %I SET NOT NULL', g.wanted));
  FOR gap IN SELECT * FROM pg_temp.tenant_backup_gaps LOOP
    IF gap.required THEN
      EXECUTE format('ALTER TABLE %s ALTER COLUMN %I DROP NOT NULL', gap.top, gap.wanted);
    END IF;
    EXECUTE format('ALTER TABLE ONLY %s ALTER COLUMN %I SET DEFAULT %L', gap.target, gap.wanted, gap.value);
  END LOOP;
END $$;
"""

_CLOSE = """DO $$
DECLARE
  gap record;
BEGIN
  FOR gap IN SELECT * FROM pg_temp.tenant_backup_gaps LOOP
    IF gap.kept IS NULL THEN
      EXECUTE format('ALTER TABLE ONLY %s ALTER COLUMN %I DROP DEFAULT', gap.target, gap.wanted);
    ELSE
      EXECUTE format('ALTER TABLE ONLY %s ALTER COLUMN %I SET DEFAULT ', gap.target, gap.wanted) || gap.kept;
    END IF;
  END LOOP;
  FOR gap IN
    SELECT DISTINCT g.top, g.wanted, g.declared FROM pg_temp.tenant_backup_gaps g WHERE g.required LOOP
    BEGIN
      EXECUTE format('ALTER TABLE %s ', gap.top) || gap.declared;
    EXCEPTION WHEN not_null_violation THEN
      RAISE WARNING 'NOT NULL of %.% is off: rows came back without a value', gap.top, gap.wanted;
    END;
  END LOOP;
END $$;
DROP TABLE pg_temp.tenant_backup_gaps;
"""


def opening(tables: list[dict[str, Any]]) -> Iterator[str]:
    """Yield what makes excluded columns ready for rows."""
    gaps = [_gap(table, excluded) for table in tables for excluded in table["excluded"]]
    if gaps:
        yield _BEGIN.format(gaps=",\n  ".join(gaps))
        yield _OPEN


def closing(tables: list[dict[str, Any]]) -> Iterator[str]:
    """Yield what puts their definitions back."""
    if any(table["excluded"] for table in tables):
        yield _CLOSE


def _gap(table: dict[str, Any], excluded: dict[str, Any]) -> str:
    rule = excluded["onRestore"]
    value = excluded["value"] if rule in {"KeepLive", "Value"} else None
    name = quoted(table["schema"], table["table"])
    return f"({', '.join(map(literal, (name, excluded['column'], rule, value)))})"
