"""The OpenAPI document, the routes and what is really answered are one thing."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import msgspec
import pytest

from api.documents import PaymentDocument, PaymentEventDocument, TransactionDocument, WebhookEndpointDocument
from api.openapi import openapi_document, problem_codes
from api.problems import CODES
from tests.unit.api.platform_in_memory import Platform


async def test_the_document_is_open_to_all_and_lists_every_route_with_its_refusals(platform: Platform) -> None:
    answer = await platform.call("GET", "/openapi.json", key=None)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    document = answer.json
    assert document["openapi"] == "3.1.0"
    listed = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    assert listed == {(route.method, route.path) for route in platform.routes}
    for route in platform.routes:
        operation = document["paths"][route.path][route.method.lower()]
        statuses = {str(status) for status in route.answers} | {str(CODES[code]) for code in problem_codes(route)}
        assert set(operation["responses"]) == statuses
    ids = [operation["operationId"] for item in document["paths"].values() for operation in item.values()]
    assert len(ids) == len(set(ids))


async def test_the_document_tells_of_the_headers_that_matter(platform: Platform) -> None:
    paths = openapi_document("Payments", platform.routes)["paths"]
    confirm = paths["/payments/{payment_id}/confirm"]["post"]
    sent = {parameter["name"]: parameter.get("description") for parameter in confirm["parameters"]}
    assert all(sent[name] for name in ("Idempotency-Key", "Prefer"))
    assert {"Idempotency-Replayed", "Preference-Applied"} <= set(confirm["responses"]["200"]["headers"])
    create = paths["/payments"]["post"]["responses"]
    assert [status for status in create if "Location" in create[status]["headers"]] == ["201", "202"]
    assert [status for status in create if "Retry-After" in create[status]["headers"]] == ["202", "429", "503"]
    read = {
        parameter["name"]: parameter.get("description")
        for parameter in paths["/payments/{payment_id}"]["get"]["parameters"]
    }
    assert read["Client-Secret"]


async def test_every_reference_of_the_document_leads_somewhere(platform: Platform) -> None:
    document = json.loads(msgspec.json.encode(openapi_document("Payments", platform.routes)))

    def references(node: Any) -> list[str]:
        if isinstance(node, dict):
            own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
            return own + [found for child in node.values() for found in references(child)]
        return [found for child in node for found in references(child)] if isinstance(node, list) else []

    found = references(document)
    assert found
    for reference in found:
        at: Any = document
        for step in reference.removeprefix("#/").split("/"):
            at = at[step]


async def test_unknown_fields_are_refused_by_the_document_too(platform: Platform) -> None:
    schemas = openapi_document("Payments", platform.routes)["components"]["schemas"]
    assert schemas["CreatePayment"]["additionalProperties"] is False
    assert schemas["CreatePayment"]["required"] == ["amount", "currency", "customer"]
    assert schemas["Customer"]["additionalProperties"] is False


async def test_a_route_that_would_ignore_the_fields_it_is_sent_cannot_be_made(platform: Platform) -> None:
    rotate = next(route for route in platform.routes if route.path.endswith("/rotate_secret"))
    with pytest.raises(AssertionError, match="would ignore the fields"):
        dataclasses.replace(rotate, body=None)


async def test_answers_hold_the_documented_fields_in_the_documented_order(platform: Platform) -> None:
    created = (await platform.create()).json
    assert list(created) == list(PaymentDocument.__struct_fields__)
    confirmed = (await platform.confirm(created["payment_id"])).json
    assert list(confirmed["transactions"][0]) == list(TransactionDocument.__struct_fields__)
    events = (await platform.call("GET", f"/payments/{created['payment_id']}/events")).json["data"]
    assert list(events[0]) == list(PaymentEventDocument.__struct_fields__)
    body = {"url": "http://127.0.0.1:9/hook", "event_types": ["payment.*"]}
    endpoint = (await platform.call("POST", "/webhook_endpoints", body)).json
    assert list(endpoint) == list(WebhookEndpointDocument.__struct_fields__)
    for document, kind in ((created, PaymentDocument), (endpoint, WebhookEndpointDocument)):
        msgspec.convert(document, kind)
