"""The records of usage, cost and calls that every layer shares; money, text, ids and errors."""
