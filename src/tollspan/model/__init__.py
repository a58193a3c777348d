"""Records of usage, cost and calls, money, text, ids and errors: what every layer speaks."""
