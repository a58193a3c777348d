"""Commands that read or maintain the ledger: reports, exports, imports, repricing and pruning."""
