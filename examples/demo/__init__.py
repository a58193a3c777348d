"""The demo: a small assistant (`app.py`), and `run.py`, which meters it against a fake provider and checks the bill."""
