"""The wire, read without I/O: framings, dialects, providers, the reader that joins them, and batch formats."""
