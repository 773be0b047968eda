"""The ingress replica: HTTP in front, the catalog that it follows, its part of `/metrics`."""
