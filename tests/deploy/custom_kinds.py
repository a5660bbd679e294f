"""What is checked of objects whose kinds are not Kubernetes' own: the fields that we use."""

from typing import Any

_NAME = {"type": "string", "pattern": "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"}
_DURATION = {"type": "string", "pattern": "^[0-9]+(h|m|s)$"}


def _exactly(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    """An object of these properties and no other."""
    return {"type": "object", "required": list(required), "additionalProperties": False,
            "properties": required | (optional or {})}


def _object(version: str, kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = _exactly({"name": _NAME}, {"namespace": _NAME, "labels": {"type": "object"}})
    return _exactly({"apiVersion": {"const": version}, "kind": {"const": kind},
                     "metadata": metadata, "spec": spec})


_ISSUER_REF = _exactly({"name": _NAME, "kind": {"enum": ["Issuer", "ClusterIssuer"]},
                        "group": {"const": "cert-manager.io"}})
_PRIVATE_KEY = _exactly({"algorithm": {"enum": ["ECDSA", "RSA", "Ed25519"]},
                         "size": {"type": "integer"}},
                        {"rotationPolicy": {"enum": ["Always", "Never"]}})
_USAGES = {"type": "array", "items": {"enum": ["digital signature", "server auth", "client auth"]}}
_RULE = {"type": "object", "required": ["expr"], "properties": {
    "alert": {"type": "string"}, "record": {"type": "string"}, "expr": {"type": "string"},
    "for": {"type": "string"}, "labels": {"type": "object"}, "annotations": {"type": "object"},
    "keep_firing_for": {"type": "string"}}, "additionalProperties": False}

# By kind.
SCHEMAS = {
    "Issuer": _object("cert-manager.io/v1", "Issuer", {
        "oneOf": [_exactly({"selfSigned": _exactly({})}),
                  _exactly({"ca": _exactly({"secretName": _NAME})})]}),
    "Certificate": _object("cert-manager.io/v1", "Certificate", _exactly(
        {"secretName": _NAME, "duration": _DURATION, "privateKey": _PRIVATE_KEY,
         "issuerRef": _ISSUER_REF},
        {"uris": {"type": "array", "items": {"type": "string", "pattern": "^spiffe://"},
                  "minItems": 1, "maxItems": 1},
         "dnsNames": {"type": "array", "items": {"type": "string"}}, "commonName": {
             "type": "string"}, "isCA": {"type": "boolean"}, "renewBefore": _DURATION,
         "usages": _USAGES})),
    "ServiceMonitor": _object("monitoring.coreos.com/v1", "ServiceMonitor", _exactly(
        {"selector": _exactly({"matchLabels": {"type": "object"}}),
         "endpoints": {"type": "array", "minItems": 1, "items": _exactly(
             {"port": {"type": "string"}, "path": {"type": "string"}, "interval": _DURATION})}},
        {"targetLabels": {"type": "array", "items": {"type": "string"}}})),
    "PrometheusRule": _object("monitoring.coreos.com/v1", "PrometheusRule", _exactly(
        {"groups": {"type": "array", "minItems": 1, "items": _exactly(
            {"name": {"type": "string"}, "rules": {"type": "array", "items": _RULE}},
            {"interval": _DURATION})}})),
}
