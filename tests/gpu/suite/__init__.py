"""What needs a GPU, run from a bundle on a machine without Bazel and gRPC."""
