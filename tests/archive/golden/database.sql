-- What the golden archives hold: small, and one of each kind of thing that a restore has to bring back.
CREATE TABLE person (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name text NOT NULL,
  initial text GENERATED ALWAYS AS (left(name, 1)) STORED,
  boss bigint REFERENCES person,
  born date
);
INSERT INTO person (name, boss, born) VALUES
  ('Grüße 王小明 🌱', NULL, '1970-01-01'), (E'tab\there', 1, NULL), (E'line\nbreak and back\\slash', 1, '2024-02-29'), ('\N', 2, NULL), ('', 2, NULL);
CREATE TABLE event (id int PRIMARY KEY, text text NOT NULL);
INSERT INTO event SELECT i, i || ' ' || repeat('what happened ', 580) FROM generate_series(1, 900) i;
CREATE SCHEMA "Odd ""Name""";
CREATE TABLE "Odd ""Name"""."it's; $(odd)" ("A column" numeric, "a" text[], nothing int);
INSERT INTO "Odd ""Name"""."it's; $(odd)" VALUES (1e20 / 3, ARRAY['x', NULL, '"'], NULL);
CREATE TABLE nothing ();
INSERT INTO nothing DEFAULT VALUES;
CREATE TABLE empty (id serial PRIMARY KEY);
CREATE TABLE part (id int, day date) PARTITION BY RANGE (day);
CREATE TABLE part_2024 PARTITION OF part FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
INSERT INTO part SELECT i, date '2024-01-01' + i FROM generate_series(1, 5) i;
CREATE SEQUENCE "it's a sequence" START 7;
SELECT nextval('"it''s a sequence"');
CREATE MATERIALIZED VIEW initials AS SELECT initial, count(*) FROM person GROUP BY 1;
CREATE FUNCTION never() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'a restore fires no trigger'; END $$;
CREATE TRIGGER never BEFORE INSERT ON event FOR EACH ROW EXECUTE FUNCTION never();
SELECT lo_from_bytea(4711, decode(repeat('00ff0a5c', 64), 'hex'));
