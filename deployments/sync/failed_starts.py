"""Which applications could not be started when they were last asked for. Must not import ray."""

from __future__ import annotations

from collections.abc import Set


class FailedStarts:
    """Reasons by application. `placement` is all that a start depends on: of one that is another by
    now nothing is known."""

    def __init__(self) -> None:
        self._reasons: dict[str, tuple[object, str]] = {}

    @property
    def names(self) -> Set[str]:
        """Those of which something is known."""
        return self._reasons.keys()

    def note(self, name: str, placement: object, reason: str) -> None:
        """The application did not come up."""
        self._reasons[name] = (placement, reason)

    def forget(self, name: str) -> None:
        """The application came up."""
        self._reasons.pop(name, None)

    def reason(self, name: str, placement: object) -> str | None:
        """Why it did not come up when it was last asked for, None where it did or wasn't."""
        failed_with, reason = self._reasons.get(name, (None, None))
        return reason if failed_with == placement else None

    def retain(self, names: Set[str]) -> None:
        """Forget all others."""
        self._reasons = {name: known for name, known in self._reasons.items() if name in names}
