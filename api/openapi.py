"""The OpenAPI 3.1 document, made from the same table of routes and the same models that the server runs on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec
from aiohttp import web

from api.calls import Call
from api.docs_page import docs_page, docs_route
from api.lists import LIMIT_DEFAULT, LIMIT_MAX
from api.problems import CODES, RETRIABLE
from api.routes import Access, IdempotencyKey, KeyAccess, OpenAccess, OperatorAccess, Route

_TIME = {"type": "string", "format": "date-time"}
_QUERY_SCHEMAS: Mapping[str, Mapping[str, Any]] = {
    "limit": {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT},
    "created_after": _TIME,
    "created_before": _TIME,
    "settlement_date": {"type": "string", "format": "date"},
}
_TEXT_HEADER: Mapping[str, Any] = {"schema": {"type": "string"}}
_RETRY_AFTER: Mapping[str, Any] = {"description": "seconds", "schema": {"type": "integer", "minimum": 1}}
_PARAMETER = re.compile(r"\{(\w+)\}")

_EVERYWHERE = frozenset(
    {"card_data_forbidden", "invalid_request", "not_acceptable", "headers_too_large", "uri_too_long"}
)
_WITH_BODY = frozenset({"invalid_json", "unknown_field", "body_too_large", "unsupported_media_type", "request_timeout"})


class OpenApi:
    """Serves the document of one port's routes. It is made once, when the server is put together."""

    def __init__(self, title: str, routes: Sequence[Route], access: Access) -> None:
        self._access = access
        document = openapi_document(title, [*routes, *self._routes("")])
        self._body = msgspec.json.encode(document)
        self._page = docs_page(document)

    def routes(self) -> list[Route]:
        """The routes of the document itself: for programs, and for people."""
        return self._routes(self._page)

    def _routes(self, page: str) -> list[Route]:
        return [
            Route(
                method="GET",
                path="/openapi.json",
                handler=self.get,
                summary="This document",
                access=self._access,
                answers={200: dict[str, Any]},
            ),
            docs_route(self._access, page),
        ]

    async def get(self, call: Call) -> web.Response:
        response = call.answer(200, None)
        response.body = self._body
        return response


def openapi_document(title: str, routes: Sequence[Route]) -> dict[str, Any]:
    """The document as plain data."""
    types = [kind for route in routes for kind in (*route.answers.values(), route.body) if kind is not None]
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    by_type = dict(zip(map(_name, types), schemas, strict=True))
    components["Problem"] = _problem_schema()
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, by_type)
    for route in routes:
        _link_to_what_it_makes(route, routes, paths[route.path][route.method.lower()])
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": "1.0.0"},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "apiKey": {"type": "http", "scheme": "bearer", "description": "An API key: sk_, pk_ or rk_"},
                "clientCertificate": {"type": "mutualTLS"},
            },
        },
    }


def _link_to_what_it_makes(maker: Route, routes: Sequence[Route], operation: dict[str, Any]) -> None:
    """An answer 201 names the operations on the object that was made."""
    made = maker.answers.get(201)
    links = {
        _operation_id(route): {
            "operationId": _operation_id(route),
            "parameters": {name: f"$response.body#/{name}"},
        }
        for route in routes
        if made is not None
        and route.path.startswith(f"{maker.path}/{{")
        and (name := _PARAMETER.findall(route.path.removeprefix(maker.path))[0]) in made.__struct_fields__
    }
    if links and "{" not in maker.path:
        operation["responses"]["201"]["links"] = links


def problem_codes(route: Route) -> frozenset[str]:
    """Every code that the route may answer."""
    codes = _EVERYWHERE | {"internal_error"} | route.problems
    if not isinstance(route.access, OpenAccess):
        codes |= {"forbidden"}
    if not isinstance(route.access, OperatorAccess):
        codes |= {"rate_limited"}
    if isinstance(route.access, KeyAccess):
        codes |= {"unauthenticated", "unavailable"}
    if route.body is not None:
        codes |= _WITH_BODY
        fields = {field.name for field in msgspec.structs.fields(route.body)}
        codes |= {f"{name}_invalid" for name in ("amount", "currency") if name in fields}
    if route.idempotency_key is not IdempotencyKey.IGNORED:
        codes |= {"idempotency_key_invalid"}
    if route.idempotency_key is IdempotencyKey.REQUIRED:
        codes |= {"idempotency_key_required"}
    return codes


def _operation(route: Route, by_type: Mapping[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": route.summary,
        "operationId": _operation_id(route),
        "parameters": _parameters(route),
        "responses": {
            **{str(status): _success(route, status, by_type) for status in route.answers},
            **_refusals(route),
        },
    }
    match route.access:
        case KeyAccess(scope):
            operation["security"] = [{"apiKey": [scope]}]
        case OpenAccess():
            operation["security"] = []
        case _:
            operation["security"] = [{"clientCertificate": []}]
    if route.body is not None:
        operation["requestBody"] = {
            "required": not route.body_optional,
            "content": {"application/json": {"schema": by_type[_name(route.body)]}},
        }
    return operation


def _parameters(route: Route) -> list[dict[str, Any]]:
    text = {"type": "string"}
    found = [{"name": name, "in": "path", "required": True, "schema": text} for name in _PARAMETER.findall(route.path)]
    found += [
        {
            "name": name,
            "in": "query",
            "required": False,
            "description": meaning,
            "schema": _QUERY_SCHEMAS.get(name, text),
        }
        for name, meaning in route.query.items()
    ]
    found += [
        {"name": name, "in": "header", "required": False, "description": meaning, "schema": text}
        for name, meaning in route.headers.items()
    ]
    if route.idempotency_key is not IdempotencyKey.IGNORED:
        found.append(
            {
                "name": "Idempotency-Key",
                "in": "header",
                "required": route.idempotency_key is IdempotencyKey.REQUIRED,
                "description": "the repeat under the same key gets the same answer and has no second effect",
                "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
            }
        )
    if isinstance(route.access, KeyAccess) and route.access.publishable and route.method == "GET":
        meaning = "the payment's client_secret: a browser's proof beside the publishable key"
        found.append(
            {"name": "Client-Secret", "in": "header", "required": False, "description": meaning, "schema": text}
        )
    return found


def _success(route: Route, status: int, by_type: Mapping[str, Any]) -> dict[str, Any]:
    headers = {"Request-Id": _TEXT_HEADER}
    if HTTPStatus.CREATED in route.answers:  # 202: the object is not recorded yet
        headers["Location"] = {"description": "of the new object, where it has an address of its own", **_TEXT_HEADER}
        if status == HTTPStatus.ACCEPTED:
            headers["Retry-After"] = _RETRY_AFTER
    if route.idempotency_key is not IdempotencyKey.IGNORED:
        headers["Idempotency-Replayed"] = {"description": "true when this is a repeat's answer", **_TEXT_HEADER}
    if "Prefer" in route.headers:
        headers["Preference-Applied"] = {"description": "the wait that was applied", **_TEXT_HEADER}
    answer: dict[str, Any] = {"description": HTTPStatus(status).phrase, "headers": headers}
    kind = route.answers[status]
    if kind is not None:
        answer["content"] = {route.media_type: {"schema": by_type[_name(kind)]}}
    return answer


def _refusals(route: Route) -> dict[str, Any]:
    by_status: dict[int, list[str]] = {}
    for code in sorted(problem_codes(route)):
        by_status.setdefault(CODES[code], []).append(code)
    return {str(status): _refusal(codes) for status, codes in sorted(by_status.items())}


def _refusal(codes: Sequence[str]) -> dict[str, Any]:
    headers = {"Request-Id": _TEXT_HEADER}
    if RETRIABLE.intersection(codes):
        headers["Retry-After"] = _RETRY_AFTER
    return {
        "description": ", ".join(codes),
        "headers": headers,
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }


def _problem_schema() -> dict[str, Any]:
    text = {"type": "string"}
    return {
        "title": "Problem",
        "type": "object",
        "properties": {
            "type": text,
            "title": text,
            "status": {"type": "integer"},
            "code": {"type": "string", "enum": sorted(CODES)},
            "detail": text,
            "param": text,
            "payment_status": text,
            "request_id": text,
        },
        "required": ["type", "title", "status", "code", "detail", "request_id"],
        "additionalProperties": False,
    }


def _operation_id(route: Route) -> str:
    words = re.findall(r"[a-z_]+", route.path.replace("{", "by_").replace(".", "_"))
    return "_".join([route.method.lower(), *words])


def _name(kind: Any) -> str:
    return str(kind)
