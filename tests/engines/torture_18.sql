-- What only servers from 18 on know; run after torture_17.sql, in its session.
CREATE EXTENSION btree_gist;
CREATE TABLE shown (a int, b int GENERATED ALWAYS AS (a * 2), c text, d text GENERATED ALWAYS AS (c || '!') VIRTUAL NOT NULL,
  e int GENERATED ALWAYS AS (a + 1) STORED);
INSERT INTO shown (a, c) SELECT i, 'c' || i FROM generate_series(1, 100) i;
CREATE TABLE shown_parts (a int, b int GENERATED ALWAYS AS (a + 1)) PARTITION BY LIST (a);
CREATE TABLE shown_one PARTITION OF shown_parts (b GENERATED ALWAYS AS (a + 100)) DEFAULT;
INSERT INTO shown_parts VALUES (1), (2);
CREATE TABLE stays (room int, during tsrange, guest text, CONSTRAINT one_guest PRIMARY KEY (room, during WITHOUT OVERLAPS),
  UNIQUE (guest, during WITHOUT OVERLAPS));
INSERT INTO stays SELECT 1, tsrange(timestamp '2025-01-01' + i * interval '1 day', timestamp '2025-01-02' + i * interval '1 day'), 'g' || i
FROM generate_series(1, 50) i;
CREATE TABLE meals (room int, during tsrange, FOREIGN KEY (room, PERIOD during) REFERENCES stays (room, PERIOD during));
INSERT INTO meals VALUES (1, '[2025-01-05 10:00,2025-01-08 11:00)');
CREATE TABLE required (a int CONSTRAINT must_be NOT NULL, b int CONSTRAINT "own ""one""" NOT NULL NO INHERIT, c int, d int NOT NULL);
CREATE TABLE required_too (e int NOT NULL) INHERITS (required);
INSERT INTO required VALUES (1, 1, NULL, 1), (2, 2, 2, 2);
INSERT INTO required_too VALUES (1, NULL, 1, 1, 1);
ALTER TABLE required ADD CONSTRAINT someday NOT NULL c NOT VALID;
COMMENT ON CONSTRAINT must_be ON required IS 'named';
ALTER TABLE required ADD CONSTRAINT wished CHECK (a > 100) NOT ENFORCED;
CREATE TABLE loosely (a int REFERENCES animal (id) NOT ENFORCED, b int);
INSERT INTO loosely VALUES (4711, 1);
CREATE TABLE loosely_parts (id int, animal int) PARTITION BY HASH (id);
CREATE TABLE loosely_part PARTITION OF loosely_parts FOR VALUES WITH (MODULUS 1, REMAINDER 0);
INSERT INTO loosely_parts VALUES (1, 4711);
ALTER TABLE loosely_parts ADD CONSTRAINT someday FOREIGN KEY (animal) REFERENCES animal (id) NOT VALID;
CREATE TABLE timed (id uuid DEFAULT uuidv7() PRIMARY KEY, t text COLLATE pg_unicode_fast);
INSERT INTO timed (t) SELECT casefold('ẞ' || i) FROM generate_series(1, 10) i;
CREATE PUBLICATION computed_too FOR TABLE computed WITH (publish_generated_columns = stored);
ALTER DEFAULT PRIVILEGES GRANT SELECT ON LARGE OBJECTS TO reader;
