"""What a uv project's lock says that it needs."""

from __future__ import annotations

import pytest

from deployments.environments.project_lock import packages_of

INDEX = 'source = { registry = "https://h/simple" }'
LOCK = f"""
version = 1
[[package]]
name = "shop"
version = "0.1.0"
source = {{ virtual = "." }}
dependencies = [
    {{ name = "zoopkg", extra = ["fancy"] }},
    {{ name = "numpy", version = "1.26.4", marker = "python_full_version < '3.12'" }},
    {{ name = "numpy", version = "2.1.0", marker = "python_full_version >= '3.12'" }},
]
[package.optional-dependencies]
more = [{{ name = "unasked" }}]
[package.dev-dependencies]
dev = [{{ name = "unasked" }}]
[[package]]
name = "zoopkg"
version = "1.0.0"
{INDEX}
dependencies = [{{ name = "deep" }}]
[package.optional-dependencies]
fancy = [{{ name = "tabulate", marker = "sys_platform == 'win32'" }}]
[[package]]
name = "deep"
version = "3.0"
{INDEX}
dependencies = [{{ name = "zoopkg" }}]
[[package]]
name = "tabulate"
version = "0.9.0"
{INDEX}
[[package]]
name = "unasked"
version = "1.0"
{INDEX}
[[package]]
name = "numpy"
version = "1.26.4"
{INDEX}
[[package]]
name = "numpy"
version = "2.1.0"
{INDEX}
"""


def test_all_that_the_project_leads_to_is_needed() -> None:
    """With the extras that are asked for, by the markers, and without other groups."""
    found = packages_of(LOCK)
    assert found is not None
    assert [str(each) for each in found] == [
        "deep==3.0",
        'numpy==1.26.4 ; python_full_version < "3.12"',
        'numpy==2.1.0 ; python_full_version >= "3.12"',
        'tabulate==0.9.0 ; sys_platform == "win32"',
        "zoopkg==1.0.0",
    ]


@pytest.mark.parametrize(
    "lock",
    [
        "version = ",
        "version = 1",
        LOCK.replace('name = "deep"\nversion = "3.0"', 'name = "deeper"\nversion = "3.0"'),
        LOCK.replace(INDEX, 'source = { git = "https://h/r" }'),
        LOCK.replace("3.0", "3.0 --target /"),
    ],
)
def test_what_cant_be_told_isnt_guessed(lock: str) -> None:
    """It is no lock, lacks a package, or has one that is of no index."""
    assert packages_of(lock) is None
