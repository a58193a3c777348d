"""The command `tollspan doctor`: checks, and a probe of the environment it runs in."""
