"""The process: forks, a background worker, finalizers, event loops and packaged files."""
