"""Spans that other instrumentations emit: whose a call's span is, and the processor that prices the rest."""
