"""CLI11 (Debian: libcli11-dev), headers only: `@cli11`."""

load("//third_party:pkg_config.bzl", "pkg_config_repository")

def cli11_repository():
    pkg_config_repository(
        name = "cli11",
        debian_package = "libcli11-dev",
        header_only = True,
        targets = {"cli11": ["CLI11"]},
    )
