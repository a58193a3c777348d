"""`tollspan providers`: the supported providers and their hosts."""

from __future__ import annotations

import click
from rich.console import Console
from rich.table import Table

from tollspan.settings import load
from tollspan.setup.providers import active_providers
from tollspan.wire.providers import bundled


@click.command()
def providers() -> None:
    """List supported providers and their hosts."""
    settings = load()
    rows = []
    for key, provider in sorted(active_providers(settings).items()):
        source = "" if bundled().get(key) is provider else " (tollspan.toml)"
        rows.append((key, provider.title + source, ", ".join(provider.hosts)))
    rows += [(rule.provider, "(your setting)", rule.host + rule.path_prefix) for rule in settings.hosts]
    console = Console(markup=False)
    if not console.is_terminal:  # in a pipe each provider is one line of any length
        click.echo("\n".join("\t".join(row) for row in rows))
        return
    table = Table("key", "provider", "hosts", box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    console.print(table)
