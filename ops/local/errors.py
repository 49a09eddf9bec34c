"""What stops the local stack: one sentence that says what is wrong and one that says the way out."""

from __future__ import annotations


class StackError(Exception):
    """Shown to the person as it is; the command then exits with 1. Nothing that was stored is touched."""

    def __init__(self, what: str, way_out: str) -> None:
        super().__init__(f"{what} {way_out}")
        self.what = what
        self.way_out = way_out
