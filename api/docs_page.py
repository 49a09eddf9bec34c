"""GET /docs: the OpenAPI document as one page to read. No script, no other host; its policy allows its own style."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from aiohttp import web

from api.calls import Call
from api.routes import Access, Route

MEDIA_TYPE = "text/html"

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { margin: 0 auto; max-width: 60rem; padding: 2rem 1rem; }
h2 { border-top: 1px solid; margin-top: 2.5rem; padding-top: 1rem; font-size: 1.15rem; }
h2 b { font-family: ui-monospace, monospace; }
code, pre { font-family: ui-monospace, monospace; font-size: .9em; }
table { border-collapse: collapse; width: 100%; }
th, td { border-bottom: 1px solid #8886; padding: .3rem .6rem .3rem 0; text-align: left; vertical-align: top; }
nav { columns: 20rem; } nav a { display: block; } pre { overflow-x: auto; }
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

PAGE_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
}


def docs_route(access: Access, page: str) -> Route:
    """The route that serves `page`, which was made when the server was put together."""

    async def get(call: Call) -> web.Response:
        response = call.empty(200)
        response.content_type = MEDIA_TYPE
        response.charset = "utf-8"
        response.headers.update(PAGE_HEADERS)
        response.body = page.encode()
        return response

    return Route(
        method="GET",
        path="/docs",
        handler=get,
        summary="This interface as a page to read",
        access=access,
        answers={200: str},
        media_type=MEDIA_TYPE,
    )


def docs_page(document: Mapping[str, Any]) -> str:
    """The OpenAPI document as HTML."""
    title = escape(document["info"]["title"])
    operations = [
        (method.upper(), path, operation)
        for path, item in document["paths"].items()  # in the order in which the server declares its routes
        for method, operation in item.items()
    ]
    links = "".join(
        f'<a href="#{escape(operation["operationId"])}"><code>{method} {escape(path)}</code></a>'
        for method, path, operation in operations
    )
    schemas = document["components"]["schemas"]
    body = "".join(
        [
            *(_operation(*each) for each in operations),
            "<h1>Documents</h1>",
            *(_schema(*each) for each in schemas.items()),
        ]
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body><h1>{title}</h1>"
        '<p>The same for programs: <a href="/openapi.json">openapi.json</a>.</p>'
        f"<nav>{links}</nav>{body}</body></html>"
    )


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> str:
    parameters = "".join(
        f"<tr><td><code>{escape(parameter['name'])}</code></td><td>{parameter['in']}"
        f"{', required' if parameter['required'] else ''}</td><td>{escape(parameter.get('description', ''))}</td></tr>"
        for parameter in operation["parameters"]
    )
    answers = "".join(
        f"<tr><td>{status}</td><td>{escape(answer['description'])}</td><td>{_content(answer)}</td></tr>"
        for status, answer in operation["responses"].items()
    )
    request = operation.get("requestBody")
    return (
        f'<h2 id="{escape(operation["operationId"])}"><b>{method}</b> <code>{escape(path)}</code></h2>'
        f"<p>{escape(operation['summary'])}</p>"
        + (f"<p>Body: {_content(request)}</p>" if request else "")
        + (f"<table><tr><th>Parameter<th>Where<th>Meaning</tr>{parameters}</table>" if parameters else "")
        + f"<table><tr><th>Status<th>Codes<th>Body</tr>{answers}</table>"
    )


def _schema(name: str, schema: Mapping[str, Any]) -> str:
    required = schema.get("required", [])
    rows = "".join(
        f"<tr><td><code>{escape(field)}</code></td><td>{_type(kind)}{'' if field in required else ', optional'}</td>"
        f"<td>{escape(kind.get('description', ''))}</td></tr>"
        for field, kind in schema.get("properties", {}).items()
    )
    return f'<h2 id="{escape(name)}">{escape(name)}</h2><table><tr><th>Field<th>Type<th>Meaning</tr>{rows}</table>'


def _content(holder: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{_type(content['schema'])} <code>{escape(media)}</code>"
        for media, content in holder.get("content", {}).items()
    )


def _type(schema: Mapping[str, Any]) -> str:
    return " or ".join(_types(schema)) or "anything"


def _types(schema: Mapping[str, Any]) -> Iterator[str]:
    if "$ref" in schema:
        name = escape(str(schema["$ref"]).rpartition("/")[2])
        yield f'<a href="#{name}">{name}</a>'
    for choice in (*schema.get("anyOf", ()), *schema.get("allOf", ())):
        yield from _types(choice)
    if "enum" in schema:
        yield ", ".join(f"<code>{escape(str(each))}</code>" for each in schema["enum"])
    elif schema.get("type") == "array":
        yield f"list of {_type(schema.get('items', {}))}"
    elif "type" in schema:
        yield escape(str(schema["type"])) + _limits(schema)


def _limits(schema: Mapping[str, Any]) -> str:
    words = {"minimum": "at least", "maximum": "at most", "minLength": "length at least", "maxLength": "length at most"}
    said = [f"{word} {schema[name]}" for name, word in words.items() if name in schema]
    if "pattern" in schema:
        said.append(f"<code>{escape(schema['pattern'])}</code>")
    return f" ({', '.join(said)})" if said else ""
