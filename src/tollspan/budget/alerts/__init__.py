"""Warnings when a share of a budget is spent: thresholds and webhooks."""
