"""The command `tollspan`."""

from __future__ import annotations

import click

from tollspan.apps.budget_cli import budget
from tollspan.apps.doctor import doctor
from tollspan.apps.prices import prices
from tollspan.apps.inspection import inspect, runs
from tollspan.apps.running import run
from tollspan.version import __version__


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="tollspan")
def main() -> None:
    """Read the toll of every LLM call off the wire: what it used, what it cost, how fast it was.

    Start with:  tollspan run -- python app.py
    """


for _command in (run, inspect, runs):
    main.add_command(_command)
main.add_command(prices)
main.add_command(budget)
main.add_command(doctor)


@main.command()
def providers() -> None:
    """List the providers that are recognised, and their hosts."""
    from tollspan.providers import bundled

    for key, provider in sorted(bundled().items()):
        click.echo(f"{key:20} {provider.title:24} {', '.join(provider.hosts)}")
