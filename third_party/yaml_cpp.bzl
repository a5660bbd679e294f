"""yaml-cpp (Debian: libyaml-cpp-dev): `@yaml_cpp`."""

load("//third_party:pkg_config.bzl", "pkg_config_repository")

def yaml_cpp_repository():
    pkg_config_repository(
        name = "yaml_cpp",
        debian_package = "libyaml-cpp-dev",
        static = True,
        targets = {"yaml_cpp": ["yaml-cpp"]},
    )
