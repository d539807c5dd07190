-- What only servers from 16 or 17 on know; run after torture.sql, in its session.
CREATE TABLE tickets (id bigint GENERATED ALWAYS AS IDENTITY (START 10 INCREMENT 10), at int4range NOT NULL,
  what text STORAGE EXTERNAL, EXCLUDE USING gist (at WITH =)) PARTITION BY RANGE (at) USING heap;
CREATE TABLE tickets_few PARTITION OF tickets FOR VALUES FROM ('[0,1)') TO ('[50,51)');
CREATE TABLE tickets_rest PARTITION OF tickets DEFAULT;
INSERT INTO tickets (at, what) SELECT int4range(i, i + 1), 't' || i FROM generate_series(1, 90) i;
CREATE TABLE spans (i interval);
INSERT INTO spans VALUES ('infinity'), ('-infinity'), ('178000000 years'), ('-1 mon +1 day -00:00:00.000001');
CREATE COLLATION plain (provider = builtin, locale = 'C.UTF-8');
CREATE TABLE sorted (a text COLLATE plain PRIMARY KEY, b text COLLATE pg_c_utf8, n numeric(5, -2));
INSERT INTO sorted SELECT 'ä' || i, 'ß', i * 100 FROM generate_series(1, 20) i;
ALTER TABLE sorted ALTER COLUMN b SET STATISTICS 0;
CREATE VIEW unpacked AS SELECT * FROM JSON_TABLE('[{"a": 1}, {"a": 2}]', '$[*]' COLUMNS (n FOR ORDINALITY, a int PATH '$.a'));
CREATE VIEW asked AS SELECT JSON_VALUE('{"a": "b"}', '$.a' RETURNING text NULL ON EMPTY) AS v, SYSTEM_USER AS u;
CREATE FUNCTION merged(t text) RETURNS void LANGUAGE sql BEGIN ATOMIC
  MERGE INTO sorted s USING (SELECT t AS a) n ON s.a = n.a WHEN NOT MATCHED THEN INSERT VALUES (n.a) WHEN NOT MATCHED BY SOURCE THEN DO NOTHING;
END;
GRANT MAINTAIN ON animal TO reader;
GRANT SELECT, MAINTAIN ON egg TO leaver;
ALTER DEFAULT PRIVILEGES GRANT MAINTAIN ON TABLES TO reader;
