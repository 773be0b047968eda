"""What is ours of Ray Serve's own: its client and the ports of its replicas."""
