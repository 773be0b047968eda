"""What other programs speak: a room for each protocol, over the same predictions."""
