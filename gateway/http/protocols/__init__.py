"""Other protocols' routes: each a translation to the same service."""
