"""The command `tollspan`."""

from __future__ import annotations

import os
import shutil

import click

from tollspan.apps.autoload import SITE
from tollspan.version import __version__

NOT_FOUND = 127
"""Exit status for a command that does not exist, as shells have it."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="tollspan")
def main() -> None:
    """Read the toll of every LLM call off the wire: what it used, what it cost, how fast it was.

    Start with:  tollspan run -- python app.py
    """


@main.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--log-calls/--no-log-calls", default=None, help="Print each call as it ends.")
@click.option("--summary/--no-summary", default=True, help="Print what was spent when the program ends.  [default: on]")
@click.option("--pricing-path", metavar="FILE", help="Use this LiteLLM price file instead of the bundled one.")
@click.option("--pricing-url", metavar="URL", help="Use the LiteLLM price file at this https URL, kept on disk.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(
    command: tuple[str, ...],
    pricing_path: str | None,
    pricing_url: str | None,
    *,
    log_calls: bool | None,
    summary: bool,
) -> None:
    r"""Run COMMAND with every model call that it makes over httpx or httpx2 metered.

    The program is not changed. Python programs that it starts are metered too. What was spent is printed when it ends.
    Spans and metrics are exported by OTLP where the standard OTEL_EXPORTER_OTLP_ENDPOINT says, and nowhere otherwise.

    \b
    Examples:
      tollspan run -- python app.py
      tollspan run --log-calls -- uvicorn app:app
      OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4317 tollspan run -- python app.py
    """
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (SITE, environment.get("PYTHONPATH"))))
    if log_calls is not None:
        environment["TOLLSPAN_LOG_CALLS"] = str(log_calls).lower()
    environment["TOLLSPAN_SUMMARY"] = str(summary).lower()
    given = {"TOLLSPAN_PRICING_PATH": pricing_path, "TOLLSPAN_PRICING_URL": pricing_url}
    environment.update({name: value for name, value in given.items() if value is not None})
    program = shutil.which(command[0])
    if program is None:
        click.echo(
            f"tollspan run: there is no command {command[0]!r}; give it as in: tollspan run -- python app.py", err=True
        )
        raise SystemExit(NOT_FOUND)
    os.execve(program, command, environment)  # noqa: S606 - the user's own command, which takes this process's place


@main.command()
def providers() -> None:
    """List the providers that are recognised, and their hosts."""
    from tollspan.providers import bundled

    for key, provider in sorted(bundled().items()):
        click.echo(f"{key:20} {provider.title:24} {', '.join(provider.hosts)}")
