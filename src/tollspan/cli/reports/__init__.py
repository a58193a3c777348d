"""Commands that read or maintain the ledger: totals, single calls, exports, imports, repricing and pruning."""
