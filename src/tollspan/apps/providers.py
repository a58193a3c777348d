"""`tollspan providers`: who is recognised, and where."""

from __future__ import annotations

import click

from tollspan.providers import bundled


@click.command()
def providers() -> None:
    """List the providers that are recognised, and their hosts."""
    for key, provider in sorted(bundled().items()):
        click.echo(f"{key:20} {provider.title:24} {', '.join(provider.hosts)}")
