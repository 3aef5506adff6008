"""The OpenAPI document as a page for people. Pure: a value in, HTML out, in which every text is escaped and
nothing is loaded or run."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any, TypeAlias

Value: TypeAlias = Mapping[str, Any]

STYLE = """
:root { color-scheme: light dark; --edge: light-dark(#d0d4da, #3a4048); --soft: light-dark(#f4f5f7, #1f2329);
  --quiet: light-dark(#565d66, #a3abb5); --link: light-dark(#0b57b0, #82b6f5) }
body { margin: 0 auto; max-width: 56rem; padding: 1rem; font: 1rem/1.5 system-ui, sans-serif;
  background: light-dark(#fff, #15181c); color: light-dark(#1b1f24, #e4e7eb); overflow-wrap: anywhere }
h1 { font-size: 1.5rem } h2 { font-size: 1.05rem; margin: 0 } h3 { font-size: .9rem; margin: 1rem 0 .25rem }
a { color: var(--link) } ul { list-style: none; padding: 0 } nav li { padding: .2rem 0 }
section { border: 1px solid var(--edge); border-radius: .5rem; padding: 1rem; margin: 1rem 0 }
code, pre { font: .875rem/1.45 ui-monospace, monospace }
pre { background: var(--soft); padding: .75rem; border-radius: .375rem; overflow-x: auto; margin: .25rem 0 }
dl { margin: 0 } dt { margin-top: .5rem } dd { margin: 0 0 0 1rem } p { margin: .4rem 0 }
.quiet { color: var(--quiet); font-size: .875rem } .method { font-weight: 700 }
"""
#: Of STYLE alone: whatever got into the page could load and run nothing.
_DIGEST = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
POLICY = (
    f"default-src 'none'; style-src 'sha256-{_DIGEST}'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_CODE = re.compile(r"`([^`]*)`")
_PART = re.compile(r"#/components/\w+/\w+")
_NOT_PLAIN = re.compile(r"[^a-zA-Z0-9]+")


def page(document: Value) -> str:
    """HTML of a document of server/http/openapi.py."""
    return "\n".join(_page(document))


def _page(document: Value) -> Iterator[str]:
    info, parts = document["info"], document["components"]
    title = f"{info['title']} {info['version']}"
    yield f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<style>{STYLE}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>"
    yield f"<p>{_text(info['description'])}</p>"
    base = document["servers"][0]["url"]
    yield f'<p class="quiet">All paths are below <code>{escape(base)}</code>.</p>'
    operations = [
        (method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    yield "<nav>\n<ul>"
    for method, path, operation in operations:
        link = f'<a href="#{_id(method, path)}"><code>{escape(method)} {escape(path)}</code></a>'
        yield f"<li>{link} {_text(operation['summary'])}</li>"
    yield "</ul>\n</nav>\n<main>"
    for method, path, operation in operations:
        yield from _operation(method, path, operation)
    for kind, each in (("responses", _response), ("schemas", _schema_part)):
        for name, value in parts[kind].items():
            yield f'<section id="{_id(kind, name)}">\n<h2>{escape(name)}</h2>'
            yield from each(value)
            yield "</section>"
    yield "</main>\n</body>\n</html>\n"


def _operation(method: str, path: str, operation: Value) -> Iterator[str]:
    yield f'<section id="{_id(method, path)}">'
    yield f'<h2><span class="method">{escape(method)}</span> <code>{escape(path)}</code></h2>'
    yield f"<p>{_text(operation['summary'])}</p>"
    yield f'<p class="quiet">Needs: <code>{escape(operation["x-needs"])}</code></p>'
    if params := operation.get("parameters"):
        yield "<h3>Parameters</h3>\n<dl>"
        for param in params:
            yield from _parameter(param)
        yield "</dl>"
    if body := operation.get("requestBody"):
        yield "<h3>Body</h3>"
        yield from _content(body["content"])
    yield "<h3>Responses</h3>\n<dl>"
    for status, response in operation["responses"].items():
        yield f"<dt><code>{escape(status)}</code></dt>\n<dd>"
        yield from _response(response)
        yield "</dd>"
    yield "</dl>\n</section>"


def _parameter(param: Value) -> Iterator[str]:
    told = [param["in"]] + ["required"] * bool(param.get("required"))
    told_of = f'<span class="quiet">{escape(", ".join(told))}</span>'
    yield f"<dt><code>{escape(param['name'])}</code> {told_of}</dt>"
    yield f"<dd>{_text(param['description'])}"
    if pattern := param["schema"].get("pattern"):
        yield f'<span class="quiet">as <code>{escape(pattern)}</code></span>'
    yield "</dd>"


def _response(response: Value) -> Iterator[str]:
    if reference := response.get("$ref"):
        yield _reference(reference)
        return
    yield f"<p>{_text(response['description'])}</p>"
    if headers := response.get("headers"):
        names = ", ".join(f"<code>{escape(name)}</code>" for name in headers)
        yield f'<p class="quiet">Headers: {names}</p>'
    yield from _content(response.get("content", {}))


def _content(content: Value) -> Iterator[str]:
    for media, told in content.items():
        yield f"<p><code>{escape(media)}</code></p>"
        if told["schema"]:
            yield from _schema(told["schema"])


def _schema_part(schema: Value) -> Iterator[str]:
    if described := schema.get("description"):
        yield f"<p>{_text(described)}</p>"
    yield from _schema({key: value for key, value in schema.items() if key != "description"})


def _schema(schema: Value) -> Iterator[str]:
    if set(schema) == {"$ref"}:
        yield _reference(schema["$ref"])
    else:
        text = escape(json.dumps(schema, indent=2, ensure_ascii=False))
        yield f"<pre>{_PART.sub(lambda found: _link(found[0]), text)}</pre>"


def _reference(reference: str) -> str:
    return f"<p>{_link(reference)}</p>"


def _link(reference: str) -> str:
    kind, name = reference.split("/")[-2:]
    return f'<a href="#{_id(kind, name)}">{escape(name)}</a>'


def _text(text: str) -> str:
    return _CODE.sub(r"<code>\1</code>", escape(text))


def _id(*words: str) -> str:
    return _NOT_PLAIN.sub("-", "-".join(words)).strip("-").lower()
