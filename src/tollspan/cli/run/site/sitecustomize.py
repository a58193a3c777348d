"""Python imports this module when it starts, in programs run by `tollspan run`: it meters them before they begin."""

from tollspan.cli.run.autoload import start

start()
