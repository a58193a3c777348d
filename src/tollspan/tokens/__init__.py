"""Token counts for calls whose provider states none: estimates, model families, tokenizers."""
