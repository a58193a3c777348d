"""The command `tollspan run`: the parent process, and what is loaded into the program that it starts."""
