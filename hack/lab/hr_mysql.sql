-- A tenant's database shaped like an HR product, for MySQL and MariaDB: nine tables, about 47,000 rows.
-- Made by the server itself, the same each time.
SET NAMES utf8mb4;
SET time_zone = '+00:00';

CREATE TEMPORARY TABLE counter (n int PRIMARY KEY);  -- 1 to 10,000
INSERT INTO counter
WITH digit AS (SELECT 0 AS d UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4
               UNION ALL SELECT 5 UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9)
SELECT 1 + a.d + 10 * b.d + 100 * c.d + 1000 * e.d FROM digit a, digit b, digit c, digit e;

-- Names from several alphabets: what is not ASCII must come back exactly.
CREATE TEMPORARY TABLE word (n int PRIMARY KEY, w varchar(20) CHARACTER SET utf8mb4);
INSERT INTO word VALUES (0,'Müller'),(1,'Nguyễn'),(2,'Søren'),(3,'Ólafur'),(4,'Иванова'),(5,'王小明'),(6,'ελένη'),
  (7,'O''Brien'),(8,'tab\there'),(9,'אברהם'),(10,'🌱 green'),(11,'back\\slash'),(12,'line\nbreak');

CREATE TABLE employee (
  id bigint unsigned AUTO_INCREMENT PRIMARY KEY, name varchar(99) NOT NULL, email varchar(99) NOT NULL UNIQUE, born date,
  salary decimal(12,2), skills set('sql', 'care', 'law') NOT NULL DEFAULT '', profile json, photo varbinary(64),
  manager_id bigint unsigned, hired_at datetime(6) NOT NULL, active bit(1), notes text,
  KEY by_name (name), FOREIGN KEY (manager_id) REFERENCES employee (id)
) COMMENT 'people — all of them';
CREATE TABLE app_user (
  id bigint unsigned PRIMARY KEY, login varchar(40) NOT NULL UNIQUE, password_hash varchar(99) NOT NULL, api_token varbinary(16),
  last_login timestamp(3) NULL, FOREIGN KEY (id) REFERENCES employee (id)
);
CREATE TABLE attendance (
  id bigint AUTO_INCREMENT PRIMARY KEY, employee_id bigint unsigned NOT NULL, day date NOT NULL, came time, went time,
  minutes int GENERATED ALWAYS AS (timestampdiff(MINUTE, timestamp(day, came), timestamp(day, went))) STORED, place point,
  UNIQUE KEY once_a_day (employee_id, day), FOREIGN KEY (employee_id) REFERENCES employee (id)
);
CREATE TABLE leave_request (
  id int AUTO_INCREMENT PRIMARY KEY, employee_id bigint unsigned NOT NULL, kind enum('vacation', 'sick', 'parental', 'unpaid') NOT NULL,
  first date, last date, approved boolean, reason tinytext, FOREIGN KEY (employee_id) REFERENCES employee (id)
);
CREATE TABLE project (id smallint PRIMARY KEY, name varchar(99), budget decimal(40,10), since year, share float, plan mediumblob);
CREATE TABLE task (
  id binary(16) PRIMARY KEY, project_id smallint NOT NULL, assignee bigint unsigned, title varchar(200) NOT NULL, done_at datetime,
  position double, KEY (assignee), FOREIGN KEY (project_id) REFERENCES project (id)
);
CREATE TABLE payment (id bigint PRIMARY KEY, paid_at datetime(3) NOT NULL, amount double, reference char(32) CHARACTER SET latin1)
  PARTITION BY HASH (id) PARTITIONS 3;
CREATE TABLE setting (name varchar(40) PRIMARY KEY, value json);
CREATE TABLE activity_log (at datetime(6) NOT NULL, actor int, action varchar(40) NOT NULL, details longtext);  -- no primary key

INSERT INTO employee (name, email, born, salary, skills, profile, photo, manager_id, hired_at, active, notes)
SELECT concat(w, ' ', c.n), concat('person', c.n, '@example.org'), date '1950-01-01' + INTERVAL c.n * 37 % 18000 DAY,
  nullif(c.n * 7919 % 900000, 0) / 7, c.n % 8, json_object('grade', c.n % 9, 'word', w), if(c.n % 5 = 0, NULL, unhex(sha2(c.n, 256))),
  if(c.n > 10, 1 + c.n % 10, NULL), timestamp '2015-03-29 02:30:00.000001' + INTERVAL c.n * 7 HOUR, nullif(c.n % 3, 2),
  CASE c.n % 4 WHEN 0 THEN '' WHEN 1 THEN NULL ELSE concat('\\N', w) END
FROM counter c JOIN word ON word.n = c.n % 13 WHERE c.n <= 2000 ORDER BY c.n;
INSERT INTO app_user
SELECT id, concat('login', id), concat('$argon2id$v=19$', sha2(concat('secret', id), 256)), left(unhex(sha2(concat('token', id), 256)), 16), hired_at
FROM employee WHERE id % 2 = 0;
INSERT INTO attendance (employee_id, day, came, went, place)
SELECT 1 + n % 2000, date '2024-01-01' + INTERVAL n DIV 2000 DAY, sec_to_time(28800 + n % 60 * 60), sec_to_time(59400 + n % 90 * 60),
  point(n % 180, -(n % 90)) FROM counter;
INSERT INTO leave_request (employee_id, kind, first, last, approved, reason)
SELECT 1 + c.n % 2000, 1 + c.n % 4, date '2024-01-01' + INTERVAL c.n % 300 DAY, date '2024-01-05' + INTERVAL c.n % 300 DAY,
  nullif(c.n % 3, 2), w FROM counter c JOIN word ON word.n = c.n % 13 WHERE c.n <= 4000;
INSERT INTO project SELECT c.n, concat('Project ', w), c.n * 1e9 / 3, 1901 + c.n, c.n / 7, repeat(unhex(sha2(c.n, 256)), 50)
FROM counter c JOIN word ON word.n = c.n % 13 WHERE c.n <= 60;
INSERT INTO task SELECT left(unhex(sha2(c.n, 256)), 16), 1 + c.n % 60, nullif(c.n % 2000, 0), concat('task ', c.n, ' ', w),
  timestamp '2024-10-27 01:00:00' + INTERVAL c.n MINUTE, c.n / 3 FROM counter c JOIN word ON word.n = c.n % 13;
INSERT INTO payment SELECT n, timestamp '2024-10-27 01:00:00' + INTERVAL n * 13 MINUTE, n / 3, left(sha2(n, 256), 32) FROM counter;
INSERT INTO setting SELECT concat('key.', c.n), if(c.n % 10 = 0, NULL, json_array(w, c.n, NULL))
FROM counter c JOIN word ON word.n = c.n % 13 WHERE c.n <= 200;
INSERT INTO activity_log SELECT timestamp '2024-01-01 00:00:00.000001' + INTERVAL c.n SECOND, c.n % 2000, concat('action ', c.n % 40), w
FROM counter c JOIN word ON word.n = c.n % 13;

CREATE VIEW active_employee AS SELECT id, name, email FROM employee WHERE active = 1;
CREATE TRIGGER `employee_hired` BEFORE INSERT ON `employee` FOR EACH ROW SET NEW.hired_at = coalesce(NEW.hired_at, now(6));
DROP TEMPORARY TABLE counter, word;
