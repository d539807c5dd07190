-- What happens between the two backups of a chain: table event is left alone.
INSERT INTO person (name, boss) VALUES ('Иванова', 3);
UPDATE part SET id = id + 100 WHERE id = 3;
