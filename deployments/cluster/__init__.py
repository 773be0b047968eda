"""The launcher's side of Ray: starting or joining a cluster, HAProxy, ports, taking down."""
