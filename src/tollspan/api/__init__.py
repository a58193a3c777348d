"""What programs call: prices, records of calls, and what was spent."""
