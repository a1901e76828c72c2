"""Asks the public list of known faults about every package of constraints.txt, by pip-audit.

    python .ci/known_faults.py

Ends with 1 if a package has one, or if pip-audit itself fails. Where the list can't be reached, it
says so and ends with 0.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

# Of pip-audit, and of the network's errors that it lets through.
_UNREACHED = (
    "Could not connect to",
    "not redirecting properly",
    "requests.exceptions.ConnectionError",
    "requests.exceptions.ProxyError",
    "requests.exceptions.ReadTimeout",
)
CONSTRAINTS = Path(__file__).resolve().parent.parent / "constraints.txt"


def main() -> int:
    """Print the faults; return the exit code."""
    words = ["-r", str(CONSTRAINTS), "--no-deps", "--disable-pip", "--format", "json"]
    words += ["--progress-spinner", "off", "--timeout", "10"]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pip_audit", *words], capture_output=True, text=True, timeout=300
        )
    except subprocess.TimeoutExpired:
        return _told([])
    try:
        return _told(json.loads(done.stdout)["dependencies"])
    except (ValueError, LookupError):
        if any(sign in done.stderr for sign in _UNREACHED):
            return _told([])
    print(f"known faults: pip-audit ended with {done.returncode}:\n{done.stderr}", file=sys.stderr)
    return 1


def _told(packages: list[dict[str, Any]]) -> int:
    known = [package for package in packages if "skip_reason" not in package]
    for package in known:
        for fault in package["vulns"]:
            mended = ", ".join(fault["fix_versions"]) or "no release"
            print(f"{package['name']} {package['version']}: {fault['id']}, mended in {mended}")
    if not known:
        print("known faults: the list can't be reached from here, so no package was looked up")
    else:
        print(f"known faults: {len(known)} of {len(packages)} packages were looked up")
    return int(any(package["vulns"] for package in known))


if __name__ == "__main__":
    sys.exit(main())
