"""Measuring modelmux beside its peers and its floor: `make bench`, `make bench-quick`.

Every contender serves the same model, by the same pyfunc call, to the same load, one after the
other. Absolute figures belong to a machine; what counts are the ratios within one run.
"""
