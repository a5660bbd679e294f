"""gRPC (Debian: libgrpc++-dev), linked statically: `@grpc//:grpc++`, `@grpc//:grpc++_reflection`.

Only `*/service` packages, clients and generated code may depend on it.
"""

load("//third_party:pkg_config.bzl", "pkg_config_repository")

def grpc_repository():
    pkg_config_repository(
        name = "grpc",
        debian_package = "libgrpc++-dev",
        static = True,
        targets = {
            "grpc++": ["grpc++"],
            "grpc++_reflection": [],
        },
        libraries = {"grpc++_reflection": ["-lgrpc++_reflection"]},
        target_deps = {
            "grpc++": ["@protobuf", "@absl"],
            "grpc++_reflection": [":grpc++"],
        },
    )
