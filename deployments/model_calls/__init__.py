"""Calls of models by other processes: by handle or by a local socket, and what is sent again."""
