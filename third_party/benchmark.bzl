"""Google Benchmark (Debian: libbenchmark-dev): `@benchmark`; `@benchmark//:benchmark_main` adds main()."""

load("//third_party:pkg_config.bzl", "pkg_config_repository")

def benchmark_repository():
    pkg_config_repository(
        name = "benchmark",
        debian_package = "libbenchmark-dev",
        targets = {
            "benchmark": ["benchmark"],
            "benchmark_main": [],
        },
        libraries = {"benchmark_main": ["-lbenchmark_main"]},
        target_deps = {"benchmark_main": [":benchmark"]},
    )
