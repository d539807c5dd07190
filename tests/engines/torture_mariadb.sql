-- One of everything a tenant may have in MariaDB. Run as the tenant.

CREATE TABLE `numbers` (
  a tinyint, b smallint unsigned, c mediumint zerofill, d int, e bigint unsigned, f decimal(65,30), g float, h double,
  i float(10,2), j double unsigned, k bit(1), l bit(64), m bool, n year, PRIMARY KEY (d)
);
INSERT INTO `numbers` VALUES
  (-128, 65535, 42, -2147483648, 18446744073709551615, -99999999999999999999999999999999999.999999999999999999999999999999, 0.1, 0.1, 3.14, 1e308, b'1', ~0, 1, 1901),
  (127, 0, 16777215, 2147483647, 0, 0.000000000000000000000000000001, 1.17549435e-38, 2.2250738585072014e-308, -0.01, 0, b'0', 0, 0, 0),
  (0, 1, 0, 0, 9223372036854775808, 0, 16777216, 123456789.123456789, 0, 1.5, NULL, b'1001', NULL, 2155),
  (NULL, NULL, NULL, 1, NULL, NULL, 3.402823466e38, -1.7976931348623157e308, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO `numbers` (d, g, h) SELECT 100 + seq, 1 / (seq + 3), 1 / (seq + 7) FROM seq_1_to_500;

SET sql_mode = 'ALLOW_INVALID_DATES';
CREATE TABLE `times` (
  id int AUTO_INCREMENT PRIMARY KEY, d date, t time(6), dt datetime(6), ts timestamp(6) NULL,
  touched timestamp DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP, never date DEFAULT '2023-02-31'
);
INSERT INTO `times` (d, t, dt, ts, touched) VALUES
  ('0000-00-00', '-838:59:59', '0000-00-00 00:00:00', '0000-00-00 00:00:00', '1999-12-31 23:59:59'),
  ('2024-02-00', '838:59:59', '9999-12-31 23:59:59.999999', '2038-01-19 03:14:07.999999', '2001-01-01 00:00:00'),
  ('2023-02-31', '00:00:00.000001', '1000-01-01 00:00:00', NULL, '2001-01-01 00:00:00'), (NULL, NULL, NULL, NULL, NULL);
SET sql_mode = 'NO_AUTO_VALUE_ON_ZERO';
INSERT INTO `times` (id, d, touched) VALUES (0, '2024-01-01', '2002-02-02 00:00:00');
SET sql_mode = '';

-- Every byte value in every type that holds bytes.
CREATE TABLE `bytes` (
  id int PRIMARY KEY, b binary(3), vb varbinary(20), tb tinyblob, bl blob, mb mediumblob, lb longblob, bt bit(16)
);
INSERT INTO `bytes` SELECT seq, char(seq, 0, seq), char(seq, seq), char(seq, 9, 10, 92, 13, 39, 34, 0, 26), char(92, seq, 78), char(seq, 255 - seq), repeat(char(seq), 300), seq * 257 FROM seq_0_to_255;
INSERT INTO `bytes` VALUES (1000, '', '', '', '', '', '', 0), (1001, NULL, NULL, NULL, NULL, NULL, NULL, NULL), (1002, 'N', '\\N', 'NULL', '\\', '\t', '\n', 65535);
CREATE TABLE `latin` (
  id int PRIMARY KEY, c char(4) CHARACTER SET latin1, v varchar(10) CHARACTER SET latin1, t text CHARACTER SET cp1251,
  u varchar(10) CHARACTER SET ucs2, w varchar(10) CHARACTER SET utf16, x text CHARACTER SET utf32, e enum('a','ü','x''y') CHARACTER SET latin1,
  s set('a','ü','c') CHARACTER SET latin1
) DEFAULT CHARSET latin1 COMMENT 'schön';
INSERT INTO `latin` SELECT seq, char(seq USING latin1), char(seq, seq USING latin1), char(seq USING cp1251), char(0, seq USING ucs2), char(0, seq USING utf16), char(0, 0, 0, seq USING utf32), 1 + seq MOD 3, seq MOD 8 FROM seq_0_to_127;
INSERT INTO `latin` (id, v, e) VALUES (500, 'naïve', ''), (501, 'x', 'nonsense');
CREATE TABLE `words` (id int PRIMARY KEY, j json, t longtext, ty tinytext, c char(20) COLLATE utf8mb4_bin, sj varchar(20) CHARACTER SET sjis, g varchar(20) CHARACTER SET gbk) DEFAULT CHARSET utf8mb4;
INSERT INTO `words` VALUES
  (1, '{"a": [1, null, "\\t\\u00fc"]}', 'tab	newline
backslash \\ quote '' "', 'ü€𝄞', '日本', '表示', '中文'),
  (2, NULL, '', 'N', '\\N', '', '\\'), (3, '[]', NULL, NULL, NULL, NULL, NULL);
CREATE TABLE `shapes` (id int PRIMARY KEY, g geometry, p point NOT NULL, l linestring, y polygon, m geometrycollection, SPATIAL KEY (p));
INSERT INTO `shapes` VALUES
  (1, ST_GeomFromText('POINT(1 2)', 4326), POINT(9, 10), ST_GeomFromText('LINESTRING(0 0,9 10,92 13)'), ST_GeomFromText('POLYGON((0 0,10 0,10 10,0 0))'), ST_GeomFromText('GEOMETRYCOLLECTION(POINT(1 1),LINESTRING(1 1,2 2))')),
  (2, NULL, POINT(0, 0), NULL, NULL, NULL);
CREATE TABLE `ids` (u uuid PRIMARY KEY, a inet4, b inet6);
INSERT INTO `ids` VALUES ('123e4567-e89b-12d3-a456-426655440000', '192.0.2.1', '2001:db8::ff00:42:8329'), (uuid(), NULL, '::');

-- Keys: composite, none, negative, unsigned; generated and invisible columns; partitions; empty tables.
CREATE TABLE `pairs` (a int, b varchar(20), c int, PRIMARY KEY (b, a), KEY (c));
INSERT INTO `pairs` SELECT seq MOD 7, concat('k', seq), -seq FROM seq_1_to_100;
CREATE TABLE `prefixed` (a text, b int, PRIMARY KEY (a(5)));
INSERT INTO `prefixed` SELECT concat(char(97 + seq), repeat('x', seq)), seq FROM seq_1_to_20;
CREATE TABLE `descending` (a int, b int, PRIMARY KEY (a DESC, b));
INSERT INTO `descending` SELECT seq MOD 5, -seq FROM seq_1_to_50;
CREATE TABLE `keyless` (a int, b text);
INSERT INTO `keyless` SELECT seq MOD 3, 'same' FROM seq_1_to_50;
CREATE TABLE `computed` (
  a int PRIMARY KEY, hidden varchar(10) INVISIBLE DEFAULT 'h', b int GENERATED ALWAYS AS (a * 2) VIRTUAL, c varchar(40) GENERATED ALWAYS AS (concat(a, '!')) STORED,
  d int DEFAULT (1 + 1), KEY (b), CHECK (a < 1000)
);
INSERT INTO `computed` (a, hidden) SELECT seq, concat('h', seq) FROM seq_1_to_20;
CREATE TABLE `parts` (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (year(at)) (PARTITION p0 VALUES LESS THAN (2000), PARTITION p1 VALUES LESS THAN MAXVALUE);
INSERT INTO `parts` VALUES (1, '1999-01-01'), (2, '2024-01-01');
CREATE TABLE `empty` (a int AUTO_INCREMENT PRIMARY KEY) AUTO_INCREMENT = 77;
CREATE TABLE `odd ``name"; -- ü` (`select` int PRIMARY KEY, `tab	and
newline` text, `ünï` int COMMENT 'it''s \\ odd');
INSERT INTO `odd ``name"; -- ü` VALUES (1, 'x', 2);
CREATE TABLE `old` (a int PRIMARY KEY, b text, FULLTEXT KEY (b)) ENGINE = MyISAM;
INSERT INTO `old` VALUES (1, 'some words'), (2, NULL);
CREATE TABLE `squeezed` (a int PRIMARY KEY, b text) ROW_FORMAT = COMPRESSED;
INSERT INTO `squeezed` VALUES (1, repeat('x', 5000));

SET foreign_key_checks = 0;
CREATE TABLE `chicken` (id int PRIMARY KEY, egg int, FOREIGN KEY (egg) REFERENCES `egg` (id));
CREATE TABLE `egg` (id int PRIMARY KEY, chicken int, FOREIGN KEY (chicken) REFERENCES `chicken` (id) ON DELETE CASCADE, self int REFERENCES `egg` (id));
INSERT INTO `chicken` VALUES (1, 2), (2, 1);
INSERT INTO `egg` VALUES (1, 1, 2), (2, 2, NULL);
SET foreign_key_checks = 1;

CREATE SEQUENCE `counter` START WITH 100 INCREMENT BY 5 CYCLE MAXVALUE 1000;
SELECT NEXT VALUE FOR `counter`, NEXT VALUE FOR `counter`;
CREATE SEQUENCE `untouched`;
CREATE TABLE `numbered` (id bigint DEFAULT (NEXT VALUE FOR `counter`) PRIMARY KEY, a int);
INSERT INTO `numbered` (a) VALUES (1), (2);

-- Tables that remember: with columns nobody named, with named and with hidden ones, a part that forgets, no key, partitions.
CREATE TABLE `past` (id int PRIMARY KEY, a varchar(20), b bigint WITHOUT SYSTEM VERSIONING, KEY (a)) WITH SYSTEM VERSIONING;
CREATE TABLE `since` (
  id int, a text, `from ``here` timestamp(6) GENERATED ALWAYS AS ROW START, till timestamp(6) GENERATED ALWAYS AS ROW END INVISIBLE,
  c int AS (id * 2) STORED, PRIMARY KEY (id DESC), PERIOD FOR SYSTEM_TIME (`from ``here`, till)
) WITH SYSTEM VERSIONING;
CREATE TABLE `keyless past` (a int) WITH SYSTEM VERSIONING;
CREATE TABLE `slices` (id int PRIMARY KEY) WITH SYSTEM VERSIONING PARTITION BY SYSTEM_TIME INTERVAL 1 MONTH STARTS '2001-01-01 00:00:00'
  (PARTITION p0 HISTORY, PARTITION p1 HISTORY, PARTITION pn CURRENT);
CREATE TABLE `booked` (id int, f date, t date, PERIOD FOR p (f, t), PRIMARY KEY (id, p WITHOUT OVERLAPS)) WITH SYSTEM VERSIONING;
SET timestamp = unix_timestamp('2001-01-15 00:00:00.000001');
INSERT INTO `past` SELECT seq, concat('first ', seq), seq FROM seq_1_to_50;
INSERT INTO `since` (id, a) SELECT seq, 'tab	and \\ newline\n' FROM seq_1_to_50;
INSERT INTO `keyless past` SELECT seq MOD 3 FROM seq_1_to_9;
INSERT INTO `slices` SELECT seq FROM seq_1_to_9;
INSERT INTO `booked` VALUES (1, '2001-01-01', '2001-12-31');
SET timestamp = unix_timestamp('2001-02-15 00:00:00');
UPDATE `past` SET a = NULL WHERE id > 10;
DELETE FROM `past` WHERE id > 40;
UPDATE `since` SET a = concat(a, '2');
UPDATE `keyless past` SET a = a + 1;
DELETE FROM `slices` WHERE id > 3;
DELETE FROM `booked` FOR PORTION OF p FROM '2001-03-01' TO '2001-04-01';
SET timestamp = unix_timestamp('2001-02-16 00:00:00');
UPDATE `past` SET a = 'again' WHERE id < 5;
UPDATE `past` SET b = 7;
SET timestamp = DEFAULT;

-- Code: views that need each other in the wrong order, routines, triggers in an order, events.
CREATE VIEW `z_base` AS SELECT id, egg FROM `chicken`;
CREATE VIEW `a_top` AS SELECT id FROM `z_base` WHERE egg > 0 WITH CHECK OPTION;
CREATE ALGORITHM = TEMPTABLE SQL SECURITY INVOKER VIEW `über` AS SELECT 'ü' AS `ü`;
CREATE TABLE `log` (id int AUTO_INCREMENT PRIMARY KEY, what varchar(100));
DELIMITER ;;
CREATE FUNCTION `twice`(n int) RETURNS int DETERMINISTIC COMMENT 'ü' RETURN n * 2;;
CREATE PROCEDURE `note`(IN what varchar(100)) MODIFIES SQL DATA
BEGIN
  -- a comment; with a semicolon
  INSERT INTO `log` (what) VALUES (concat(what, ' ', twice(2), ' \\ ''ü'''));
END;;
SET sql_mode = 'ANSI_QUOTES,PIPES_AS_CONCAT';;
CREATE FUNCTION "ansi"(n int) RETURNS varchar(20) NO SQL RETURN n || 'x';;
SET sql_mode = '';;
CREATE TRIGGER `second` BEFORE INSERT ON `pairs` FOR EACH ROW SET NEW.c = NEW.c + 1;;
CREATE TRIGGER `first` BEFORE INSERT ON `pairs` FOR EACH ROW PRECEDES `second` SET NEW.c = NEW.c * 2;;
CREATE TRIGGER `after` AFTER INSERT ON `pairs` FOR EACH ROW BEGIN CALL note('x'); END;;
CREATE EVENT `nightly` ON SCHEDULE EVERY 1 DAY STARTS '2024-01-01 03:00:00' ON COMPLETION PRESERVE DISABLE DO CALL note('night');;
DELIMITER ;
CREATE VIEW `calls` AS SELECT twice(id) AS t FROM `egg`;
