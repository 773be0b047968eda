"""The HTTP server's edge: how answers are written, and what is answered before any route."""
