-- A tenant's database shaped like an HR product: twelve tables, about 120,000 rows at :scale = 1.
-- Deterministic for one :tenant and :scale, made by the server itself.
\set ON_ERROR_STOP on
SET client_min_messages = warning;
BEGIN;

CREATE SCHEMA finance;
CREATE TYPE leave_kind AS ENUM ('vacation', 'sick', 'parental', 'unpaid');
CREATE DOMAIN email AS text CHECK (VALUE ~ '@');

CREATE TABLE employee (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name text NOT NULL, email email NOT NULL UNIQUE, born date, salary numeric(12,2),
  skills text[] NOT NULL DEFAULT '{}', profile jsonb, photo bytea, manager_id bigint REFERENCES employee,
  hired_at timestamptz NOT NULL, active boolean, notes text
);
CREATE TABLE app_user (
  id bigint PRIMARY KEY REFERENCES employee, login text NOT NULL UNIQUE,
  password_hash text NOT NULL, api_token bytea, last_login timestamptz
);
CREATE TABLE attendance (
  id bigserial PRIMARY KEY, employee_id bigint NOT NULL REFERENCES employee, day date NOT NULL,
  came time, went time, minutes int GENERATED ALWAYS AS (extract(epoch FROM went - came)::int / 60) STORED,
  location point, UNIQUE (employee_id, day)
);
CREATE TABLE leave_request (
  id serial PRIMARY KEY, employee_id bigint NOT NULL REFERENCES employee, kind leave_kind NOT NULL,
  during daterange NOT NULL, approved boolean, reason text
);
CREATE TABLE project (id int PRIMARY KEY, name text NOT NULL, budget numeric, tags text[], meta json, parent int);
CREATE TABLE task (
  id uuid PRIMARY KEY, project_id int NOT NULL REFERENCES project, assignee bigint REFERENCES employee,
  title text NOT NULL, estimate interval, done_at timestamp, position real
);
CREATE TABLE finance.budget (id int PRIMARY KEY, project_id int REFERENCES project, year smallint, amount numeric(16,2));
CREATE TABLE finance.invoice (
  id bigint NOT NULL, issued date NOT NULL, customer text NOT NULL, total numeric(14,4) NOT NULL,
  lines jsonb NOT NULL, PRIMARY KEY (id, issued)
) PARTITION BY RANGE (issued);
CREATE TABLE finance.invoice_2024 PARTITION OF finance.invoice FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
CREATE TABLE finance.invoice_2025 PARTITION OF finance.invoice FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE finance.payment (
  id bigserial PRIMARY KEY, invoice_id bigint NOT NULL, paid_at timestamptz NOT NULL,
  amount double precision, reference text
);
CREATE TABLE contact ("Id" int PRIMARY KEY, "Full Name" text, phones text[], address json, born date);
CREATE TABLE setting (key text PRIMARY KEY, value jsonb);
CREATE TABLE activity_log (
  id bigserial PRIMARY KEY, at timestamptz NOT NULL, actor bigint, action text NOT NULL, details jsonb, address inet
);

-- Names from several alphabets: what is not ASCII must come back exactly.
CREATE TEMP TABLE word (n int PRIMARY KEY, w text);
INSERT INTO word VALUES (0,'Müller'),(1,'Nguyễn'),(2,'Søren'),(3,'Ólafur'),(4,'Иванова'),(5,'王小明'),(6,'ελένη'),
  (7,'O''Brien'),(8,E'tab\there'),(9,'אברהם'),(10,'🌱 green'),(11,E'back\\slash'),(12,E'line\nbreak');

INSERT INTO employee (name, email, born, salary, skills, profile, photo, manager_id, hired_at, active, notes)
SELECT w || ' ' || i, :'tenant' || i || '@example.org', date '1950-01-01' + (i * 37 % 18000),
  CASE WHEN i % 11 = 0 THEN NULL ELSE (i * 7919 % 900000)::numeric / 7 END,
  ARRAY['sql', 'skill ' || i % 17, w], jsonb_build_object('grade', i % 9, 'word', w, 'nested', jsonb_build_array(i, NULL, true)),
  CASE WHEN i % 5 = 0 THEN NULL ELSE decode(md5(i::text || :'tenant'), 'hex') END,
  CASE WHEN i > 10 THEN 1 + i % 10 END, timestamptz '2015-03-29 02:30:00+01' + i * interval '7 hours',
  CASE i % 3 WHEN 0 THEN NULL WHEN 1 THEN true ELSE false END, CASE WHEN i % 4 = 0 THEN '' WHEN i % 4 = 1 THEN NULL ELSE '\N' || w END
FROM generate_series(1, 5000 * :scale) i JOIN word ON n = i % 13 ORDER BY i;

INSERT INTO app_user SELECT id, 'login' || id, '$argon2id$v=19$' || :'tenant' || '$' || md5('secret' || id),
  decode(md5('token' || id), 'hex'), hired_at FROM employee WHERE id % 2 = 0;
INSERT INTO attendance (employee_id, day, came, went, location)
SELECT 1 + i % (5000 * :scale), date '2024-01-01' + (i / (5000 * :scale))::int, time '08:00' + (i % 60) * interval '1 minute',
  time '16:30' + (i % 90) * interval '1 minute', point(i % 180, -(i % 90)) FROM generate_series(0, 45000 * :scale - 1) i;
INSERT INTO leave_request (employee_id, kind, during, approved, reason)
SELECT 1 + i % 5000, (enum_range(NULL::leave_kind))[1 + i % 4], daterange(date '2024-01-01' + i % 300, date '2024-01-05' + i % 300),
  NULLIF(i % 3, 2)::boolean, w FROM generate_series(1, 4000 * :scale) i JOIN word ON n = i % 13;
INSERT INTO project SELECT i, 'Project ' || w || i, i * 1e20 / 3, ARRAY[w, NULL], json_build_object('a', i), NULLIF(i % 7, 0)
FROM generate_series(1, 200) i JOIN word ON n = i % 13;
INSERT INTO task SELECT md5(:'tenant' || i)::uuid, 1 + i % 200, 1 + i % 5000, 'Task ' || w, i * interval '1 month 3 seconds',
  CASE WHEN i % 2 = 0 THEN timestamp '2024-02-29 23:59:59.999999' END, sqrt(i) FROM generate_series(1, 12000 * :scale) i JOIN word ON n = i % 13;
INSERT INTO finance.budget SELECT i, 1 + i % 200, 2020 + i % 6, i * 1234.56 FROM generate_series(1, 1000) i;
INSERT INTO finance.invoice SELECT i, date '2024-01-01' + i % 700, 'Customer ' || w, i * 3.1415, jsonb_build_array(jsonb_build_object('qty', i % 9, 'text', w))
FROM generate_series(1, 15000 * :scale) i JOIN word ON n = i % 13;
INSERT INTO finance.payment (invoice_id, paid_at, amount, reference)
SELECT i, timestamptz '2024-10-27 01:00:00+00' + i * interval '13 minutes', CASE i % 1000 WHEN 7 THEN 'NaN'::float8 WHEN 8 THEN '-Infinity' ELSE i / 3.0 END, md5(i::text)
FROM generate_series(1, 15000 * :scale) i;
INSERT INTO contact SELECT i, w || ' ' || i, ARRAY['+39 ' || i, NULL], json_build_object('street', w, 'no', i), date '4000-01-01' - i
FROM generate_series(1, 3000 * :scale) i JOIN word ON n = i % 13;
INSERT INTO setting SELECT 'key.' || i, CASE WHEN i % 10 = 0 THEN NULL ELSE to_jsonb(w) END FROM generate_series(1, 200) i JOIN word ON n = i % 13;
INSERT INTO activity_log (at, actor, action, details, address)
SELECT timestamptz '2024-01-01 00:00:00.000001+00' + i * interval '1 second', 1 + i % 5000, 'action ' || i % 40,
  jsonb_build_object('i', i, 'w', w), ('10.' || i % 256 || '.' || i / 256 % 256 || '.7')::inet FROM generate_series(1, 20000 * :scale) i JOIN word ON n = i % 13;

CREATE INDEX ON activity_log USING gin (details);
CREATE INDEX ON employee (lower(name));
CREATE VIEW active_employee AS SELECT id, name, email FROM employee WHERE active;
CREATE MATERIALIZED VIEW finance.paid_per_month AS
  SELECT date_trunc('month', paid_at AT TIME ZONE 'UTC') AS month, count(*) FROM finance.payment GROUP BY 1;
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.hired_at := coalesce(NEW.hired_at, now()); RETURN NEW; END $$;
CREATE TRIGGER employee_touch BEFORE INSERT ON employee FOR EACH ROW EXECUTE FUNCTION touch();
COMMENT ON TABLE employee IS 'people — all of them';
COMMIT;
