"""How rows leave a database and come back, one package per engine; knows no archive, no store, no cluster."""
