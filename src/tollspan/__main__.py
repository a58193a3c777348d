"""`python -m tollspan` is the command `tollspan`."""

from tollspan.apps.cli import main

main(prog_name="tollspan")
