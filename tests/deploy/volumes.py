"""The volumes of a pod, as folders that its containers bind."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from issuer import Authority, Names
from rendered import Object, Objects


@dataclass(frozen=True)
class VolumeSources:
    """What volumes are made of.

    Attributes:
      objects: hold the Certificates that Secrets come from.
      authority: signs them.
      claims: the folder behind each PersistentVolumeClaim.
    """

    objects: Objects
    authority: Authority
    claims: dict[str, Path]


def make_volume(volume: Object, place: Path, pod: Object, sources: VolumeSources) -> Path:
    """The folder of one volume.

    Args:
      volume: as it stands in the pod.
      place: a folder that may be made for it.
      pod: has its `metadata` and `spec`.
      sources: what it is made of.
    """
    group = pod["spec"]["securityContext"]["fsGroup"]
    if "persistentVolumeClaim" in volume:
        return sources.claims[volume["persistentVolumeClaim"]["claimName"]]
    place.mkdir(parents=True)
    if "emptyDir" in volume:
        return _empty_dir(volume["emptyDir"], place, group)
    if "secret" in volume:
        names = Names.of_certificate(_certificate_of(volume, sources.objects))
    elif volume.get("csi", {}).get("driver") == "csi.cert-manager.io":
        metadata = pod["metadata"]
        names = Names.of_csi_volume(volume, metadata["name"], metadata["namespace"])
    else:
        raise NotImplementedError(f"volume {volume['name']} is of no kind that is known here")
    return _tls_folder(names, place, sources.authority, group)


def _certificate_of(volume: Object, objects: Objects) -> Object:
    name = volume["secret"]["secretName"]
    for it in objects.of_kind("Certificate"):
        if it["spec"]["secretName"] == name:
            return it
    raise LookupError(f"no Certificate makes the Secret {name}")


def _empty_dir(spec: Object, place: Path, group: int) -> Path:
    if spec.get("medium") == "Memory":
        size = spec["sizeLimit"].replace("Gi", "g").replace("Mi", "m")
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], check=True)
    os.chown(place, 0, group)
    place.chmod(0o2777)
    return place


def _tls_folder(names: Names, place: Path, authority: Authority, group: int) -> Path:
    """As the kubelet lays it out: links through `..data`, which a renewal replaces at once."""
    version = place / "..2000_01_01"
    version.mkdir()
    authority.issue(names, version)
    for file in version.iterdir():
        shutil.chown(file, 0, group)
        file.chmod(0o440)
        (place / file.name).symlink_to(Path("..data", file.name))
    (place / "..data").symlink_to(version.name)
    return place
