"""Fit the demo's table model: how many minutes the delivery of an order takes.

A scikit-learn pipeline over columns of four types, one of which callers may leave out.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder

SEED = 20240229
ORDERS = 2000
ZONES = {"centre": 4.0, "harbour": 9.0, "hills": 14.0}
COLUMNS = ["zone", "items", "distance_km", "express", "rain_mm"]


def fit_delivery_time() -> Pipeline:
    """Fit the pipeline to made-up orders; the same every time."""
    orders, minutes = _orders()
    return _pipeline().fit(orders, minutes)


def _orders() -> tuple[pd.DataFrame, pd.Series]:
    random = np.random.default_rng(SEED)
    orders = pd.DataFrame(
        {
            "zone": random.choice(list(ZONES), ORDERS),
            "items": random.integers(1, 20, ORDERS),
            "distance_km": random.uniform(0.2, 15.0, ORDERS),
            "express": random.random(ORDERS) < 0.3,
            "rain_mm": random.exponential(2.0, ORDERS),
        }
    )
    minutes = (
        8.0
        + orders["zone"].map(ZONES)
        + 0.6 * orders["items"]
        + 2.5 * orders["distance_km"]
        + 1.5 * orders["rain_mm"]
    ) * np.where(orders["express"], 0.7, 1.0)
    # Nobody measured the rain for some of the orders.
    orders.loc[random.random(ORDERS) < 0.2, "rain_mm"] = np.nan
    return orders, minutes


def _pipeline() -> Pipeline:
    # What callers leave out is no column at all, which ColumnTransformer refuses: so the columns
    # are completed first, with a method of pandas and not a function of ours, because the pipeline
    # is loaded where this module doesn't exist.
    complete = FunctionTransformer(pd.DataFrame.reindex, kw_args={"columns": COLUMNS})
    prepare = ColumnTransformer(
        [
            ("zone", OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["zone"]),
            ("rain", SimpleImputer(strategy="median"), ["rain_mm"]),
            ("numbers", "passthrough", ["items", "distance_km", "express"]),
        ]
    )
    # Answers in tenths of a minute: the rest would be noise.
    rounded = TransformedTargetRegressor(
        HistGradientBoostingRegressor(random_state=SEED),
        func=np.asarray,
        inverse_func=partial(np.round, decimals=1),
        check_inverse=False,
    )
    return Pipeline([("complete", complete), ("prepare", prepare), ("minutes", rounded)])
