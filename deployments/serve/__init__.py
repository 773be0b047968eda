"""The seam to Ray Serve: calls by handle, applications, its client, its replicas' channels and
ports."""
