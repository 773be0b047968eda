"""The seam to Ray Serve: calls by handle, applications, its client, channels and ports."""
