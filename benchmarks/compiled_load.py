"""The load that wrk makes: compiled, so that above some 8,000 requests a second it isn't itself
what is measured. One thread; whether answers are right is looked at beside it
(`benchmarks.rounds`).

wrk is in Debian's packages (https://github.com/wg/wrk). Its percentiles are over all its callers;
it adds what callers would have seen who had not waited for a late answer (`stats_correct`).
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.driving import LoadFailed, LoadPlan

_PROGRAM = "wrk"
_TIMEOUT_S = 60
_GRACE_S = 60.0

_SCRIPT = """
local bodies = { %s }
local requests, last = {}, 0
init = function()
  for number, body in ipairs(bodies) do
    requests[number] = wrk.format("POST", nil, { ["Content-Type"] = "application/json" }, body)
  end
end
request = function()
  last = last %% #requests + 1
  return requests[last]
end
done = function(summary, latency)
  local errors = summary.errors
  local lost = errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format(
    '\\n{"answered": %%d, "refused": %%d, "lost": %%d, "seconds": %%f, '
      .. '"p50_ms": %%f, "p99_ms": %%f}\\n',
    summary.requests, errors.status, lost, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledRound:
    """What wrk counted in one round: answers with a status of success, others, and requests without
    any; the round's length; percentiles of all answers' latencies."""

    answered: int
    refused: int
    lost: int
    seconds: float
    p50_ms: float
    p99_ms: float


def is_there() -> bool:
    """Whether this machine has wrk."""
    return shutil.which(_PROGRAM) is not None


def whole_seconds(seconds: float) -> int:
    """The length that wrk's rounds may have, nearest to that."""
    return max(1, round(seconds))


def compiled_round(plan: LoadPlan, *, callers: int, seconds: int) -> CompiledRound:
    """One round of the plan's requests by so many callers. Raises LoadFailed where wrk ends with an
    error."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "requests.lua"
        script.write_text(script_of([each.body for each in plan.exchanges]))
        done = subprocess.run(
            [
                _PROGRAM, "-t1", f"-c{callers}", f"-d{seconds}s", f"--timeout={_TIMEOUT_S}s",
                "-s", str(script), plan.url,
            ],
            capture_output=True, text=True, check=False, timeout=seconds + _TIMEOUT_S + _GRACE_S,
        )  # fmt: skip
    if done.returncode != 0:
        raise LoadFailed(done.stderr[-2000:] or done.stdout[-2000:])
    return round_of(done.stdout)


def script_of(bodies: Sequence[str]) -> str:
    """What wrk runs: each caller sends the next body in turn. No body may have `]==]` in it."""
    return _SCRIPT % ", ".join(f"[==[{body}]==]" for body in bodies)


def round_of(output: str) -> CompiledRound:
    """Read what the script wrote at its end."""
    found = json.loads(output.strip().splitlines()[-1])
    return CompiledRound(**found | {"answered": found["answered"] - found["refused"]})
