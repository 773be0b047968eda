"""The contenders, in the order in which they are measured and shown."""

from __future__ import annotations

from benchmarks.contenders.bentoml import BentoMl
from benchmarks.contenders.contender import Contender
from benchmarks.contenders.floor import FastApiFloor, FastApiRayFloor, RayFloor, TunedRayFloor
from benchmarks.contenders.hand_written import FastApiPyfunc, GranianPyfunc, Notebook
from benchmarks.contenders.litserve import LitServe
from benchmarks.contenders.mlflow_serve import MlflowServe
from benchmarks.contenders.mlserver import MLServer
from benchmarks.contenders.modelmux import Modelmux
from benchmarks.contenders.mosec import Mosec

CONTENDERS: tuple[Contender, ...] = (
    MlflowServe(),
    MLServer(),
    LitServe(),
    BentoMl(),
    Mosec(),
    Notebook(),
    FastApiPyfunc(),
    GranianPyfunc(),
    FastApiFloor(),
    RayFloor(),
    TunedRayFloor(),
    FastApiRayFloor(),
    Modelmux(),
)
QUICK = ("floor", "modelmux")
