"""nlohmann-json (Debian: nlohmann-json3-dev), headers only: `@nlohmann_json`."""

load("//third_party:pkg_config.bzl", "pkg_config_repository")

def nlohmann_json_repository():
    pkg_config_repository(
        name = "nlohmann_json",
        debian_package = "nlohmann-json3-dev",
        header_only = True,
        targets = {"nlohmann_json": ["nlohmann_json"]},
    )
