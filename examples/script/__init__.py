"""The smallest example: a script that asks a model and tells what that cost."""
