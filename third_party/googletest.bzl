"""GoogleTest (Debian: libgtest-dev, libgmock-dev): `@googletest//:gtest`, `:gtest_main`, `:gmock`."""

load("//third_party:pkg_config.bzl", "pkg_config_repository")

def googletest_repository():
    pkg_config_repository(
        name = "googletest",
        debian_package = "libgtest-dev libgmock-dev",
        static = True,
        targets = {
            "gtest": ["gtest"],
            "gtest_main": ["gtest_main"],
            "gmock": ["gmock"],
        },
    )
