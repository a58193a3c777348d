"""The ledger: one SQLite file in which every call's cost is kept as a fact, with sums that are always up to date.

`schema` says what the file looks like, `rows` how a call becomes a row and a row a call again, `totals` which sums are
kept, `writer` how rows get there without the application noticing, `queries` what can be asked.
"""
