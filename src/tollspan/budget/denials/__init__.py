"""How a call is refused: the denial, the response in each wire format, and streams that are cut."""
