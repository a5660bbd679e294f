"""spdlog and fmt (Debian: libspdlog-dev, libfmt-dev): `@spdlog`.

Debian has them only as shared libraries; as headers the daemons stay free of both. They are slow to compile, so
only base/logging.cc includes them.
"""

load("//third_party:pkg_config.bzl", "pkg_config_repository")

def spdlog_repository():
    pkg_config_repository(
        name = "spdlog",
        debian_package = "libspdlog-dev libfmt-dev",
        defines = ["FMT_HEADER_ONLY", "SPDLOG_FMT_EXTERNAL"],
        header_only = True,
        targets = {"spdlog": ["spdlog", "fmt"]},
    )
