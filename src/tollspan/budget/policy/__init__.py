"""What a budget is: its settings, periods, matching rules and the names of its counters."""
