"""Concurrent calls of one version travel as one: the batcher, what may share, what it costs."""
