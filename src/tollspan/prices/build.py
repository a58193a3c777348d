"""Build the bundled snapshot from LiteLLM's price file: `python -m tollspan.prices.build`.

    python -m tollspan.prices.build --from-wheel litellm-1.109.1-cp310-abi3-manylinux_2_28_x86_64.whl
    python -m tollspan.prices.build --from-json model_prices_and_context_window.json --version litellm-1.109.1

A wheel is what `pip download --no-deps litellm` fetches. The corrections beside this file are applied, the result is
verified, and `snapshot.txt` is written. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import sys
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from tollspan.model.errors import PriceTableError
from tollspan.prices import corrections, litellm_file, snapshot
from tollspan.prices.table import PriceTable

_IN_WHEEL: Final = "litellm/model_prices_and_context_window_backup.json"


def build(text: bytes, version: str) -> tuple[bytes, list[str]]:
    """Return LiteLLM's JSON as the text of a snapshot, with corrections applied.

    Args:
        text: The JSON.
        version: The name of the table; the version of the corrections and a digest are added.

    Returns:
        The snapshot, and a line for each entry that was left out and each correction that had no effect.

    Raises:
        PriceTableError: The text is not such a file.
    """
    rows, refused = litellm_file.rows_of(litellm_file.read_json(text))
    found = corrections.load()
    said = corrections.apply(rows, found)
    header = {
        "version": f"{version}+corrections.{found['version']}",
        "date": datetime.now(UTC).date().isoformat(),  # an older table is reported: tollspan.prices.age
        "source": "https://github.com/BerriAI/litellm, model_prices_and_context_window.json, MIT: see LICENSE.litellm",
    }
    made = litellm_file.snapshot(rows, header)
    for row in PriceTable.parse(made):
        if not row.key:
            raise PriceTableError("the snapshot has a row without a key")
    return made, refused + said


def _from_wheel(wheel: Path) -> tuple[bytes, str]:
    """Return the price file in a litellm wheel, and the version in the wheel's name."""
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(_IN_WHEEL), "-".join(wheel.name.split("-")[:2])


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--from-wheel", type=Path, metavar="WHEEL", help="a litellm wheel")
    source.add_argument("--from-json", type=Path, metavar="FILE", help="LiteLLM's price file")
    parser.add_argument("--version", help="the name of the table, such as litellm-1.109.1 (with --from-json)")
    parser.add_argument("--output", type=Path, default=snapshot.PATH, help="where to write (default: %(default)s)")
    options = parser.parse_args(arguments)
    if options.from_wheel:
        text, version = _from_wheel(options.from_wheel)
    else:
        text, version = options.from_json.read_bytes(), options.version or options.from_json.stem
    try:
        made, said = build(text, version)
    except PriceTableError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    options.output.write_bytes(made)
    for line in said:
        sys.stderr.write(f"{line}\n")
    table = PriceTable.parse(made)
    sys.stdout.write(f"{options.output}: {table.version}, {len(table)} rows, {len(made)} bytes\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
