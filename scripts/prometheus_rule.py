#!/usr/bin/env python3
"""Writes deploy/kubernetes/monitoring/prometheus-rule.yaml.

It holds the alerts of deploy/prometheus/rules.yml, as the object that Prometheus' operator reads:
Kustomize takes no file from outside of its folder.
"""

from pathlib import Path

_DEPLOY = Path(__file__).resolve().parents[1] / "deploy"
RULES = _DEPLOY / "prometheus" / "rules.yml"
RULE = _DEPLOY / "kubernetes" / "monitoring" / "prometheus-rule.yaml"

_HEAD = """\
# Made by scripts/prometheus_rule.py of deploy/prometheus/rules.yml, which is the place to change.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: muster
  labels: {app.kubernetes.io/name: muster}
spec:
"""


def prometheus_rule(rules: str) -> str:
    """The object that holds `rules`, the content of a file of Prometheus."""
    lines = [line for line in rules.splitlines() if not line.startswith("#")]
    return _HEAD + "".join(f"  {line}\n" if line else "\n" for line in lines)


if __name__ == "__main__":
    RULE.write_text(prometheus_rule(RULES.read_text()))
