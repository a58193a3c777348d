"""The ledger: one SQLite file that keeps the cost of every call as a fact, with sums that are always up to date.

`schema` defines the file, `rows` converts calls to rows and back, `totals` defines the kept sums, `writer` writes off
the call path, and `queries` reads.
"""
