"""OpenSSL (Debian: libssl-dev, which gRPC is built on): `@openssl`. Only //base:tls_files, //client/certs, and tests that make certificates."""

load("//third_party:pkg_config.bzl", "pkg_config_repository")

def openssl_repository():
    pkg_config_repository(
        name = "openssl",
        debian_package = "libssl-dev",
        static = True,
        targets = {"openssl": ["libcrypto"]},
    )
