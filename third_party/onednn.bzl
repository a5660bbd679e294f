"""oneDNN (Debian: libdnnl-dev), a shared library without a pkg-config file: `@onednn`."""

load("//third_party:pkg_config.bzl", "pkg_config_repository")

def onednn_repository():
    pkg_config_repository(
        name = "onednn",
        debian_package = "libdnnl-dev",
        targets = {"onednn": []},
        libraries = {"onednn": ["-ldnnl"]},
    )
