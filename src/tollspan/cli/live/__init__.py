"""Live views of the ledger: the terminal panel and the local page."""
