"""Starts tollspan in the programs of `tollspan run`: Python imports this module at start-up, before the program."""

from tollspan.cli.run.autoload import start

start()
