"""The record: tables, one a file, and beside them the queries on them."""

# A foreign key is resolved by its table's name, so whoever uses one table must have all of them.
from models import tables as tables
