"""Does here what cert-manager does in a cluster: keys and certificates as the objects ask for."""

import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from rendered import Object

_USAGES = {"digital signature": ("keyUsage", "digitalSignature"),
           "server auth": ("extendedKeyUsage", "serverAuth"),
           "client auth": ("extendedKeyUsage", "clientAuth")}
_CSI = "csi.cert-manager.io/"


@dataclass(frozen=True)
class Names:
    """Of one certificate, and what it may be used for."""

    uris: list[str]
    dns_names: list[str] = field(default_factory=list)
    usages: list[str] = field(default_factory=list)

    @staticmethod
    def of_certificate(certificate: Object) -> "Names":
        spec = certificate["spec"]
        return Names(spec["uris"], spec.get("dnsNames", []), spec["usages"])

    @staticmethod
    def of_csi_volume(volume: Object, pod: str, namespace: str) -> "Names":
        def words(name: str) -> list[str]:
            text = volume["csi"]["volumeAttributes"].get(_CSI + name, "")
            text = text.replace("${POD_NAME}", pod).replace("${POD_NAMESPACE}", namespace)
            return text.split(",") if text else []

        return Names(words("uri-sans"), words("dns-names"), words("key-usages"))

    def extensions(self) -> str:
        """As `openssl x509 -extfile` reads them."""
        names = [f"URI:{it}" for it in self.uris] + [f"DNS:{it}" for it in self.dns_names]
        usages: dict[str, list[str]] = {}
        for word in self.usages:
            extension, value = _USAGES[word]
            usages.setdefault(extension, []).append(value)
        lines = ["basicConstraints = critical,CA:FALSE", "subjectAltName = critical," +
                 ",".join(names)]
        lines += [f"{extension} = {','.join(values)}" for extension, values in usages.items()]
        return "\n".join(lines) + "\n"


class Authority:
    """Of the Issuer `muster`, in a folder of its own."""

    def __init__(self, directory: Path):
        self._directory = directory
        directory.mkdir(mode=0o700)
        _openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                 "-keyout", directory / "ca.key", "-out", directory / "ca.crt", "-days", "1",
                 "-subj", "/CN=Muster", "-addext", "keyUsage = critical,keyCertSign,cRLSign")

    def issue(self, names: Names, folder: Path) -> None:
        """Writes tls.crt, tls.key and ca.crt into `folder`, which is there."""
        request, extensions = folder / "request", folder / "extensions"
        extensions.write_text(names.extensions())
        _openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                 "-keyout", folder / "tls.key", "-out", request, "-subj", "/")
        _openssl("x509", "-req", "-in", request, "-CA", self._directory / "ca.crt", "-CAkey",
                 self._directory / "ca.key", "-CAcreateserial", "-days", "1", "-extfile",
                 extensions, "-out", folder / "tls.crt")
        (folder / "ca.crt").write_bytes((self._directory / "ca.crt").read_bytes())
        request.unlink()
        extensions.unlink()


def _openssl(*words: object) -> None:
    result = subprocess.run(["openssl", *map(str, words)], capture_output=True, text=True,
                            check=False)
    if result.returncode != 0:
        raise RuntimeError(f"openssl {words[0]}: {result.stderr.strip()}")
