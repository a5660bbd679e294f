"""Abseil (Debian: libabsl-dev): `@absl`, every library that Muster may use, linked statically as one group."""

load("//third_party:pkg_config.bzl", "pkg_config_repository")

_MODULES = [
    "absl_any_invocable",
    "absl_bits",
    "absl_cleanup",
    "absl_core_headers",
    "absl_cord",
    "absl_flat_hash_map",
    "absl_flat_hash_set",
    "absl_function_ref",
    "absl_inlined_vector",
    "absl_span",
    "absl_status",
    "absl_statusor",
    "absl_str_format",
    "absl_strings",
    "absl_synchronization",
    "absl_time",
]

def absl_repository():
    pkg_config_repository(
        name = "absl",
        debian_package = "libabsl-dev",
        static = True,
        targets = {"absl": _MODULES},
    )
