"""The contenders, in the order in which they are measured and shown."""

from __future__ import annotations

from benchmarks.contenders.contender import Contender
from benchmarks.contenders.floor import FastApiFloor, RayFloor
from benchmarks.contenders.modelmux import Modelmux

CONTENDERS: tuple[Contender, ...] = (
    FastApiFloor(),
    RayFloor(),
    Modelmux(),
)
QUICK = ("floor", "modelmux")
