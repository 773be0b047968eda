"""What tests, benchmarks and checks share: servers, gateways, clusters, callers, browsers."""
