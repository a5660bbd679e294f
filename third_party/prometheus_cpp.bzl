"""prometheus-cpp (Debian: prometheus-cpp-dev), its core alone: `@prometheus_cpp`.

Metric families and the text that they are scraped as; the HTTP is Muster's own (base/admin).
"""

load("//third_party:pkg_config.bzl", "pkg_config_repository")

def prometheus_cpp_repository():
    pkg_config_repository(
        name = "prometheus_cpp",
        debian_package = "prometheus-cpp-dev",
        targets = {"prometheus_cpp": ["prometheus-cpp-core"]},
    )
