"""Open Inference Protocol v2 (KServe, Triton, MLServer): REST with binary tensors, and gRPC."""
