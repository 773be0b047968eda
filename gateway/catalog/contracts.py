"""Contracts of signatures (JSON text of the MLmodel's): of one, of all that was promised, compared.

Cached, because many versions share a signature and building the parser takes milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import orjson

from gateway.contract import Contract, Difference, differences


@lru_cache(maxsize=8192)
def contract_of(signature: str) -> Contract:
    """The contract that a signature makes; raises UntypableSignature."""
    mapping: Mapping[str, Any] | None = orjson.loads(signature) if signature else None
    return Contract.from_signature(mapping)


@lru_cache(maxsize=8192)
def promised_contract(contract: str, earlier: tuple[str, ...] = ()) -> Contract:
    """The contract of a signature, going on to take what earlier ones took.

    Raises UntypableSignature.
    """
    promised = contract_of(contract)
    for signature in earlier:
        promised = promised.still_taking(contract_of(signature))
    return promised


@lru_cache(maxsize=8192)
def compare_signatures(
    contract: str, candidate: str, earlier: tuple[str, ...] = (), *, exact: bool = False
) -> tuple[Difference, ...]:
    """What keeps `candidate` from answering for a contract; raises UntypableSignature."""
    return differences(promised_contract(contract, earlier), contract_of(candidate), exact=exact)


@lru_cache(maxsize=8192)
def serving_contract(contract: str, earlier: tuple[str, ...], signature: str) -> Contract:
    """The contract by which a version of `signature` answers for callers of the promised one."""
    promised = promised_contract(contract, earlier)
    if contract == signature:
        return promised
    return contract_of(signature).extended_by(promised)
