"""The page at /docs: one static HTML page made of the OpenAPI description. No scripts, nothing from the network."""

from __future__ import annotations

from html import escape
from typing import Any

from app.api.problem_codes import INPUT_TITLES, PROBLEMS, SERVICE_TITLES, input_status
from app.retry.taxonomy import FAILURE_TABLE

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1f24;background:#fff}
h2{margin-top:2.5rem;border-bottom:1px solid #d0d7de}h3{margin:1.8rem 0 .3rem;font-size:1.05rem}
code,pre{font:14px/1.45 ui-monospace,monospace;background:#f3f5f7;border-radius:4px}code{padding:.1em .3em}
pre{padding:.8rem;overflow-x:auto}table{border-collapse:collapse;width:100%;margin:.5rem 0;font-size:15px}
td,th{text-align:left;vertical-align:top;padding:.3rem .6rem .3rem 0;border-bottom:1px solid #e4e8ec}
.method{display:inline-block;min-width:3.6rem;font-weight:700}
@media(prefers-color-scheme:dark){body{color:#e6e6e6;background:#16181b}code,pre{background:#24272b}td,th{border-color:#333}}
"""
_EXAMPLE = """\
# a photo and a voice, in one request
curl -F source=@face.png -F audio=@speech.wav http://localhost:8000/generate
# the same with fields
curl -F source=@face.png -F audio=@speech.wav -F 'request={"priority": 9}' http://localhost:8000/generate
# wait for the end, then take the video
curl 'http://localhost:8000/tasks/TASK_ID?wait=60'
curl -o out.mp4 http://localhost:8000/tasks/TASK_ID/output"""


def render_docs(openapi: dict[str, Any]) -> str:
    """The page."""
    title = escape(f"{openapi['info']['title']} {openapi['info']['version']}")
    operations = [
        _operation(method, path, operation, openapi)
        for path, item in openapi["paths"].items()
        for method, operation in item.items()
    ]
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{title}</title><style>{_STYLE}</style><h1>{title}</h1>"
        f"<p>A photo or a template video and a voice go in, a talking video comes out. "
        f'Machine-readable: <a href="openapi.json">openapi.json</a>.</p><pre>{escape(_EXAMPLE)}</pre>'
        f"<h2>Operations</h2>{''.join(operations)}<h2>Problems</h2>"
        f"<p>Every error is <code>application/problem+json</code> (RFC 9457) with these codes.</p>"
        f"{_problem_table()}</html>"
    )


def _operation(method: str, path: str, operation: dict[str, Any], openapi: dict[str, Any]) -> str:
    parts = [
        f'<h3><span class="method">{method.upper()}</span> <code>{escape(path)}</code></h3>'
        f"<p>{escape(operation.get('description') or operation.get('summary', ''))}</p>"
    ]
    rows = [
        (f"{p['name']} ({p['in']})", _kind(p.get("schema", {})), p.get("description", ""))
        for p in operation.get("parameters", [])
    ]
    json_body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    if "$ref" in json_body:
        model = openapi["components"]["schemas"][json_body["$ref"].rsplit("/", 1)[-1]]
        rows += [(name, _kind(s), s.get("description", "")) for name, s in model["properties"].items()]
    if rows:
        parts.append(_table(("Field", "Type", ""), rows))
    answers = [(code, "", answer.get("description", "")) for code, answer in operation["responses"].items()]
    parts.append(_table(("Answer", "", ""), answers))
    return "".join(parts)


def _kind(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_kind(s) for s in schema["anyOf"] if s.get("type") != "null")
    if "$ref" in schema:
        return str(schema["$ref"]).rsplit("/", 1)[-1]
    if "enum" in schema:
        return ", ".join(str(value) for value in schema["enum"])
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    bounds = f" {low:g} to {high:g}" if low is not None and high is not None else ""
    return str(schema.get("format") or schema.get("type", "any")) + bounds


def _problem_table() -> str:
    rows = [(code.value, row.status, row.title, row.hint) for code, row in PROBLEMS.items()]
    titles = INPUT_TITLES | SERVICE_TITLES
    rows += [(code.value, input_status(code), title, FAILURE_TABLE[code].hint) for code, title in titles.items()]
    cells = "".join(
        f'<tr id="{code}"><td><code>{code}</code><td>{status}<td>{escape(title)}<td>{escape(hint)}'
        for code, status, title, hint in rows
    )
    return f"<table><tr><th>Code<th>Status<th>Meaning<th>What to do{cells}</table>"


def _table(heads: tuple[str, str, str], rows: list[tuple[str, str, str]]) -> str:
    head = "".join(f"<th>{escape(h)}" for h in heads)
    body = "".join(f"<tr><td><code>{escape(a)}</code><td>{escape(b)}<td>{escape(c)}" for a, b, c in rows)
    return f"<table><tr>{head}{body}</table>"
