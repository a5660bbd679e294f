"""Protocol Buffers (Debian: libprotobuf-dev), linked statically: `@protobuf`."""

load("//third_party:pkg_config.bzl", "pkg_config_repository")

def protobuf_repository():
    pkg_config_repository(
        name = "protobuf",
        debian_package = "libprotobuf-dev",
        static = True,
        targets = {"protobuf": ["protobuf"]},
    )
