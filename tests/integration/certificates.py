"""Certificates for tests, made by the openssl command."""

import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

DOMAIN = "lab"
_COMMAND = "openssl"
available = shutil.which(_COMMAND) is not None


def _openssl(*arguments: str, text: str | None = None) -> str:
    made = subprocess.run(
        [_COMMAND, *arguments], input=text, capture_output=True, text=True, check=False, timeout=30
    )
    assert made.returncode == 0, f"openssl {' '.join(arguments)}: {made.stderr}"
    return made.stdout


@dataclass
class Authority:
    """A private authority and what it needs to issue, in `folder`."""

    folder: Path
    issued: int = field(default=0)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        _openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-keyout", str(self.key), "-out", str(self.certificate), "-days", "2"),
            *("-subj", "/CN=test authority"),
        )

    @property
    def key(self) -> Path:
        return self.folder / "ca.key"

    @property
    def certificate(self) -> Path:
        return self.folder / "ca.crt"

    def issue(self, name: str, into: Path, *, domain: str = DOMAIN, uri: str | None = None) -> Path:
        """tls.crt, tls.key and ca.crt of `name`, e.g. "worker/w0", in the folder `into`.

        Written as a Kubernetes secret is: a link `..data` changes to a folder with all files.
        """
        self.issued += 1
        fresh = into / f"..{self.folder.name}-{self.issued}"
        fresh.mkdir(parents=True)
        role = name.split("/", maxsplit=1)[0]
        names = f"URI:{uri or f'spiffe://{domain}/muster/{name}'},DNS:{role}.muster"
        request = fresh / "request"
        _openssl(
            *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-keyout", str(fresh / "tls.key"), "-out", str(request), "-subj", "/CN=test"),
            *("-addext", f"subjectAltName={names}"),
            *("-addext", "extendedKeyUsage=serverAuth,clientAuth"),
        )
        _openssl(
            *("x509", "-req", "-in", str(request), "-out", str(fresh / "tls.crt"), "-days", "1"),
            *("-CA", str(self.certificate), "-CAkey", str(self.key), "-copy_extensions", "copy"),
        )
        request.unlink()
        shutil.copy(self.certificate, fresh / "ca.crt")
        link = into / "..new"
        link.symlink_to(fresh.name)
        os.replace(link, into / "..data")
        for file in ("tls.crt", "tls.key", "ca.crt"):
            if not (into / file).is_symlink():
                (into / file).symlink_to(Path("..data") / file)
        return into
