"""Files for the user alone, replaced as a whole: a reader never sees half of one. Blocks."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def replace_file(path: Path, content: bytes) -> None:
    """Have a file with that content, in a folder that is made where it isn't there; raises OSError,
    and leaves what was there before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Made for the user alone (tempfile.mkstemp).
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            os.replace(file.name, path)
        except OSError:
            Path(file.name).unlink(missing_ok=True)
            raise
