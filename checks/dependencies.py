"""Known vulnerabilities of what `constraints.txt` pins, by pip-audit.

Says in one line where the service that knows them can't be reached, or knows none of our packages
(as behind a mirror), and passes: `make lint` must work without a network. Found ones fail.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

_PINS = Path(__file__).resolve().parent.parent / "constraints.txt"
_TIMEOUT_S = 5
_LONGEST_S = 300
# Asked first and alone, so that it takes a moment to find out that nobody answers.
_PROBE = "requests"


def main() -> int:
    """The exit code: 1 where something is known to be vulnerable."""
    pins = _PINS.read_text(encoding="utf-8").splitlines()
    if not _audited([pin for pin in pins if pin.startswith(f"{_PROBE}==")]):
        print("dependencies: not checked, the service of pip-audit can't be reached here")
        return 0
    audited = _audited(pins)
    print(f"dependencies: {len(audited)} of {len(pins)} checked")
    found = [(each, known) for each in audited for known in each["vulns"]]
    for each, known in found:
        fixed = ", ".join(known["fix_versions"]) or "nothing yet"
        print(f"  {each['name']} {each['version']}: {known['id']}, mended by {fixed}")
    return 1 if found else 0


def _audited(pins: list[str]) -> list[dict[str, Any]]:
    """What pip-audit knows of the packages that its service has; empty where it gave no answer."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
        requirements.write("\n".join(pins))
        requirements.flush()
        command = [
            sys.executable, "-m", "pip_audit", "--requirement", requirements.name, "--no-deps",
            "--disable-pip", "--format", "json", "--progress-spinner", "off",
            "--timeout", str(_TIMEOUT_S),
        ]  # fmt: skip
        try:
            done = subprocess.run(command, capture_output=True, timeout=_LONGEST_S, check=False)
            answer = json.loads(done.stdout)
        except (subprocess.TimeoutExpired, ValueError):
            return []
    return [each for each in answer["dependencies"] if "vulns" in each]


if __name__ == "__main__":
    sys.exit(main())
