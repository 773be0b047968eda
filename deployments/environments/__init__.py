"""Environments: the interpreter and the packages that a model's version runs with.

Reads what a version's files say that it needs (`requirement_lines`, `model_needs`), tells whether
an interpreter's own packages do (`satisfaction`), finds Pythons (`interpreters`), and builds what
is lacking by uv (`builder`, in the folder that `store` owns). Must not import ray.
"""
