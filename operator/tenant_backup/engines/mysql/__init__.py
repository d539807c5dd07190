"""The MySQL family: reads and restores MariaDB."""
