"""`python -m tollspan` is the command `tollspan`."""

from tollspan.cli.main import main

main(prog_name="tollspan")
