"""The command line: one module or subpackage for each command of `tollspan`."""
