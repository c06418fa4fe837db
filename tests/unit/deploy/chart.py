"""The chart's templates, made of what Kustomize reads: `python -m tests.unit.deploy.chart`.

An object stands once, below `deploy/`, as plain YAML: `metadata` with the name first and labels
second. A line that ends with `# helm: EXPRESSION` has the expression's default, and in the template
the expression, instead of what is below it, too. What all objects get is not marked.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import yaml

from serving.cluster import Object

ROOT = Path(__file__).resolve().parents[3]
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "chart"

PARTS = {
    "admission": "admission",
    **dict.fromkeys(("runtimes", "runner", "controller"), "base"),
    **{part: part for part in ("network", "monitoring", "queue", "tenant")},
}
"""Folder → the value whose `enabled` brings it."""

ONCE = {"Namespace", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}
OWN = {"ClusterRole", "ClusterRoleBinding", "ClusterQueue", "ResourceFlavor"}
"""What has no namespace: kinds whose names are there once in a cluster, and kinds whose names end
with the namespace, as `deploy/common` has it."""

_SPACE = '{{ include "penstock.namespace" . }}'
_LABELS = '  labels:\n    {{- include "penstock.labels" . | nindent 4 }}\n'
_MARKED = r"^( *(?:- )?[\w./-]+:)(?: .*?)? +# helm: (.+)\n"
_IMAGE = r"^( *image: )(penstock-[a-z-]+).*\n"
_ACCOUNT = r"^(  - kind: ServiceAccount\n    name: .+\n)"
_METADATA = r"^metadata:\n  name: (.+)\n(?:  labels:\n)?"


_COSTS = {
    "Deployment": {
        "      labels:\n": """\
        {{- with .Values.labels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
"""
    },
    "ServingRuntime": {
        "spec:\n": """\
  {{- with .Values.labels }}
  labels:
    {{- toYaml . | nindent 4 }}
  {{- end }}
"""
    },
}
"""Kind → where its pods' labels begin, and what comes there: whose costs they are."""


def templates() -> dict[Path, str]:
    """Return every template that is made, by its file."""
    return {CHART / "templates" / f"{part}.yaml": _template(part) for part in PARTS}


def files(part: str) -> list[Path]:
    """Return the files that a folder's kustomization names."""
    folder = DEPLOY / part
    names = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    return [folder / name for name in names]


def objects(part: str) -> list[Object]:
    """Return a folder's objects."""
    return [each for file in files(part) for each in yaml.safe_load_all(file.read_text())]


def _template(part: str) -> str:
    texts = "---\n".join(file.read_text() for file in files(part))
    if "{{" in texts:
        raise ValueError(f"deploy/{part}: Helm would take braces for its own")
    made = "---\n".join(_object(text) for text in texts.split("---\n"))
    head = f"{{{{- /* Made of deploy/{part} by tests.unit.deploy.chart: change it there. */ -}}}}"
    return f"{head}\n{{{{- if .Values.{PARTS[part]}.enabled }}}}\n{made}{{{{- end }}}}\n"


def _object(text: str) -> str:
    kind = yaml.safe_load(text)["kind"]
    text = _valued(text)
    text = _each(_IMAGE, r'\1{{ include "penstock.image" (list . "\2") }}\n', text)
    text = _each(rf"^( *(?:- )?\w+: (?:{'|'.join(sorted(own()))}))\n", rf"\1.{_SPACE}\n", text)
    text = _each(_ACCOUNT, rf"\1    namespace: {_SPACE}\n", text)
    name = _SPACE if kind == "Namespace" else r"\1"
    space = "" if kind in ONCE | OWN else f"  namespace: {_SPACE}\n"
    text = _each(_METADATA, rf"metadata:\n  name: {name}\n{space}{_LABELS}", text)
    for before, costs in _COSTS.get(kind, {}).items():
        text = text.replace(before, before + costs, 1)
    return text


def _valued(text: str) -> str:
    """Return an object with an expression for every marked line, and for what is below it."""
    lines, below = list[str](), -1
    for line in text.splitlines(keepends=True):
        indent = len(line) - len(line.lstrip())
        if -1 < below < indent:
            continue
        marked = re.fullmatch(_MARKED, line)
        below = indent if marked else -1
        lines.append(f"{marked[1]} {{{{ toJson ({marked[2]}) }}}}\n" if marked else line)
    return "".join(lines)


@cache
def own() -> frozenset[str]:
    """Return the names that end with the namespace, wherever they stand."""
    found = (obj for part in PARTS for obj in objects(part) if obj["kind"] in OWN)
    return frozenset(obj["metadata"]["name"] for obj in found)


def _each(pattern: str, made: str, text: str) -> str:
    return re.sub(pattern, made, text, flags=re.MULTILINE)


if __name__ == "__main__":
    for path, made in templates().items():
        path.write_text(made)
