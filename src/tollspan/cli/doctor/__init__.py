"""The command `tollspan doctor`: the checks of a setup, and the probe that runs in the program's interpreter."""
