"""Highway (Debian: libhwy-dev), portable SIMD: `@highway`."""

load("//third_party:pkg_config.bzl", "pkg_config_repository")

def highway_repository():
    pkg_config_repository(
        name = "highway",
        debian_package = "libhwy-dev",
        static = True,
        targets = {"highway": ["libhwy"]},
    )
