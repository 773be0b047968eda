"""The catalog: what is served, and what answers for a name and a selector.

Must not import ray, mlflow's client or fastapi. `served_models` has the values, `contracts` what
callers were promised by signatures, `resolution` the catalog of all models and its rules.
"""

from gateway.catalog.contracts import compare_signatures, contract_of, promised_contract
from gateway.catalog.resolution import (
    CanaryRoute,
    Catalog,
    Compatibility,
    Moment,
    Resolution,
    ShadowTarget,
)
from gateway.catalog.served_models import (
    LATEST,
    UNSIGNED,
    DefaultCause,
    DeploymentKind,
    EnvironmentMode,
    EnvironmentStatus,
    FormerDefault,
    HeldVersion,
    ModelOptions,
    ModelVersion,
    ServedModel,
    Shadow,
    Typing,
    is_version_number,
)
from gateway.contract import UntypableSignature
from gateway.contract.signature import UNTYPED_SIGNATURE

__all__ = [
    "LATEST",
    "UNSIGNED",
    "UNTYPED_SIGNATURE",
    "CanaryRoute",
    "Catalog",
    "Compatibility",
    "DefaultCause",
    "DeploymentKind",
    "EnvironmentMode",
    "EnvironmentStatus",
    "FormerDefault",
    "HeldVersion",
    "ModelOptions",
    "ModelVersion",
    "Moment",
    "Resolution",
    "ServedModel",
    "Shadow",
    "ShadowTarget",
    "Typing",
    "UntypableSignature",
    "compare_signatures",
    "contract_of",
    "is_version_number",
    "promised_contract",
]
