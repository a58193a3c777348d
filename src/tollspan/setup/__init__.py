"""What `instrument()` puts in place beside the hook: prices, budgets, the ledger, the summary at the end."""
