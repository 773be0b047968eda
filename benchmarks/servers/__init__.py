"""Applications that are started as programs of their own, mostly in other environments."""
