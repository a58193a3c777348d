"""The command `tollspan run`, and what happens inside the program that it starts."""
