"""An internal producer in Python: one CreatePayment to `payments.intake`. Copy it; it needs kafka-python and fastavro.

    python intake_kafka_python.py --bootstrap HOST:PORT --registry https://HOST:PORT \\
        --ca ca.pem --cert internal-producer.pem --key internal-producer.key \\
        --merchant mer_... --reference order-4711 --amount 2500 --currency USD

The same reference is the same payment, so a run that was cut off is simply repeated. What the fields mean and where
refusals appear: ops/intake/README.md.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import ssl
import sys
import time
import urllib.request
import uuid
from typing import Any

from fastavro import parse_schema, schemaless_writer
from kafka import KafkaProducer

TOPIC = "payments.intake"
SUBJECT = f"{TOPIC}-CreatePayment"
REFERENCES = uuid.UUID("0b0f5a52-4f5e-4c0e-8f3a-6b1d7c2f9e10")  # a namespace of your own, never changed
EXPIRES_AFTER_US = 24 * 3_600 * 1_000_000
ANSWER_S = 10


def payment_id(merchant: str, reference: str) -> str:
    """Derived, so that a repeated run cannot make a second payment: pay_ and 26 letters of base32."""
    data = uuid.uuid5(uuid.uuid5(REFERENCES, merchant), reference).bytes
    return "pay_" + base64.b32encode(data).decode().rstrip("=").lower()


def call(url: str, context: ssl.SSLContext, body: Any = None) -> Any:
    """JSON over mutual TLS."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})  # noqa: S310 - https, from us
    with urllib.request.urlopen(request, timeout=ANSWER_S, context=context) as answer:  # noqa: S310
        return json.load(answer)


def sealed(arguments: argparse.Namespace, context: ssl.SSLContext, payment: str) -> dict[str, Any] | None:
    """Personal data, encrypted by the platform for this payment only; null when there is none."""
    if arguments.email is None:
        return None
    body = {"payment_id": payment, "customer": {"email": arguments.email}, "description": arguments.description}
    answer = call(f"{arguments.sealing}/personal_data", context, body)
    binary = {name: base64.b64decode(answer[name]) for name in ("nonce", "ciphertext")}
    return {"key_id": answer["key_id"], **binary}


def command(arguments: argparse.Namespace, payment: str, personal_data: dict[str, Any] | None) -> dict[str, Any]:
    """The record's fields; times are microseconds since the epoch."""
    now = time.time_ns() // 1000
    return {
        "id": f"cmd_{payment.removeprefix('pay_')}",  # the same for each attempt
        "type": "payment.create",
        "occurred_at": now,
        "actor": {"identity": "internal-producer", "role": "service"},
        "request_id": f"req_{uuid.uuid4().hex}",
        "payment_id": payment,
        "merchant_id": arguments.merchant,
        "amount": arguments.amount,
        "currency": arguments.currency,
        "personal_data": personal_data,
        "client_secret_key_id": arguments.client_secret_key,
        "expires_at": now + EXPIRES_AFTER_US,
    }


def encoded(schema_id: int, schema: str, fields: dict[str, Any]) -> bytes:
    """The Confluent wire format: a zero byte, the schema's id, the Avro body."""
    buffer = io.BytesIO(b"\0" + schema_id.to_bytes(4, "big"))
    buffer.seek(5)
    schemaless_writer(buffer, parse_schema(json.loads(schema)), fields, strict_allow_default=True)
    return buffer.getvalue()


def main() -> None:
    arguments = parse_arguments()
    context = ssl.create_default_context(cafile=arguments.ca)
    context.load_cert_chain(arguments.cert, arguments.key)
    payment = payment_id(arguments.merchant, arguments.reference)
    latest = call(f"{arguments.registry}/subjects/{SUBJECT}/versions/latest", context)
    fields = command(arguments, payment, sealed(arguments, context, payment))
    value = encoded(latest["id"], latest["schema"], fields)
    producer = KafkaProducer(
        bootstrap_servers=arguments.bootstrap.split(","),
        security_protocol="SSL",
        ssl_cafile=arguments.ca,
        ssl_certfile=arguments.cert,
        ssl_keyfile=arguments.key,
        acks="all",
        enable_idempotence=True,
    )
    try:
        placed = producer.send(TOPIC, key=payment.encode(), value=value).get(timeout=30)
    finally:
        producer.close()
    json.dump({"payment_id": payment, "partition": placed.partition, "offset": placed.offset}, sys.stdout)
    sys.stdout.write("\n")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("bootstrap", "registry", "ca", "cert", "key", "merchant", "reference", "currency"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--amount", type=int, required=True, help="in minor units")
    parser.add_argument("--client-secret-key", default="k1", help="id of the platform's current client-secret key")
    parser.add_argument("--email", help="the customer's; then --sealing, too")
    parser.add_argument("--description")
    parser.add_argument("--sealing", help="payment-api's admin port, https://HOST:PORT, which encrypts personal data")
    return parser.parse_args()


if __name__ == "__main__":
    main()
