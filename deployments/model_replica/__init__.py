"""The Ray replica of one model."""
