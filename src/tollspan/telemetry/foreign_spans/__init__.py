"""Spans of other instrumentations: the ones that own a metered call, and the processor that prices the rest."""
