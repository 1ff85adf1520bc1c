"""Indexes in PostgreSQL, by its extension pgvector, which many services share.

Each index is a table; the table `rankone.indexes` holds what is known of all. Vectors are kept as they are in files: float16
(`halfvec`) or float32 (`vector`). A change locks the row of its index, so changes are made one after the other: sequence
numbers are in the order of the commits, and a page of items can skip none. An exact search compares every row in the database;
a compact one asks a graph (HNSW) for candidates. Either way the scores of the answer are computed here, as they are for files.
"""

from rankone.index.postgres.index import PostgresIndexes, look

__all__ = ["PostgresIndexes", "look"]
