"""Asking a second version what the default was asked, after its answer, and comparing."""
