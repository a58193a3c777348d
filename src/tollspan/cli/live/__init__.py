"""Live views of the ledger: the terminal panel (`tollspan top`) and the local page (`tollspan ui`)."""
