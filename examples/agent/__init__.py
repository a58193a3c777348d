"""An agent whose run has a price."""
