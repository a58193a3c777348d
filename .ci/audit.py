"""Asks whether what tollspan installs is known to be vulnerable: `python .ci/audit.py [--required] UV`.

Every dependency, the optional ones too, in the versions of uv.lock, is looked up by pip-audit in PyPI's advisories.
Exits with 1 where one has an advisory. Where the package index has none (a mirror), nothing was audited; that is said,
and is an error only with `--required`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any, Final

EXPORT: Final = ("export", "--quiet", "--locked", "--no-default-groups", "--all-extras", "--no-emit-project")
AUDIT: Final = ("pip-audit>=2.9", "--disable-pip", "--require-hashes", "--format", "json", "--progress-spinner", "off")


def main(arguments: list[str]) -> int:
    """Audit; give the exit status."""
    required, uv = "--required" in arguments, arguments[-1]
    pins = subprocess.run([uv, *EXPORT], capture_output=True, text=True, check=True).stdout  # noqa: S603 - uv
    command = [uv, "tool", "run", "--quiet", "--from", AUDIT[0], "pip-audit", *AUDIT[1:], "-r", "/dev/stdin"]
    done = subprocess.run(command, input=pins, capture_output=True, text=True, check=False)  # noqa: S603 - the same
    try:
        found = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        print(f"audit: NOT RUN, for pip-audit failed:\n{done.stderr[-2000:]}")
        return int(required)
    return verdict(found, required=required)


def verdict(found: list[dict[str, Any]], *, required: bool) -> int:
    """Return what pip-audit found of each package, and give the exit status."""
    bad = [(each, vulnerability) for each in found for vulnerability in each.get("vulns", ())]
    for each, vulnerability in bad:
        fixed = ", ".join(vulnerability.get("fix_versions", ())) or "no version"
        print(f"audit: {each['name']} {each['version']} has {vulnerability['id']}, fixed in {fixed}")
    skipped = [each["name"] for each in found if "skip_reason" in each]
    if bad:
        return 1
    if len(skipped) == len(found):
        print("audit: NOT RUN, for this package index has no advisories")
        return int(required)
    if skipped:
        print(f"audit: could not look up {', '.join(skipped)}")
        return int(required)
    print(f"audit: {len(found)} packages, no advisories")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
