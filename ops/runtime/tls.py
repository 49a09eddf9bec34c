"""TLS contexts and the identity that a peer's certificate proves.

Every connection between services is mutual TLS, at least version 1.2, under our own certificate authority. A service is
who its certificate's URI says: `spiffe://payments.local/<identity>`.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any, Literal

from ops.runtime.settings import Settings

TRUST_DOMAIN = "payments.local"
_SPIFFE_PREFIX = f"spiffe://{TRUST_DOMAIN}/"

ClientCertificates = Literal["none", "optional", "required"]

_VERIFY_MODES: Mapping[ClientCertificates, ssl.VerifyMode] = {
    "none": ssl.CERT_NONE,
    "optional": ssl.CERT_OPTIONAL,
    "required": ssl.CERT_REQUIRED,
}


def server_context(settings: Settings, client_certificates: ClientCertificates) -> ssl.SSLContext:
    """A context that serves this service's certificate and treats clients' certificates as told.

    "required" ends the handshake of a client whose certificate is missing, foreign, expired or not yet valid.
    Raises OSError or ssl.SSLError when a file is missing or broken.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.load_cert_chain(settings.tls_cert, settings.tls_key)
    context.verify_mode = _VERIFY_MODES[client_certificates]
    if client_certificates != "none":
        context.load_verify_locations(settings.tls_ca)
    return context


def client_context(settings: Settings) -> ssl.SSLContext:
    """A context for calling our own services: shows this service's certificate, trusts our authority and no other."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(settings.tls_ca)
    context.load_cert_chain(settings.tls_cert, settings.tls_key)
    return context


def kafka_security(settings: Settings) -> dict[str, str]:
    """librdkafka's settings for mutual TLS as this service; its principal is the certificate's common name."""
    return {
        "security.protocol": "ssl",
        "ssl.ca.location": str(settings.tls_ca),
        "ssl.certificate.location": str(settings.tls_cert),
        "ssl.key.location": str(settings.tls_key),
    }


def peer_identity(peer_certificate: Mapping[str, Any] | None) -> str | None:
    """The identity in a verified certificate, as `ssl.SSLObject.getpeercert()` returns it: "operator", "payment-api".

    None without a certificate, without exactly one URI of our trust domain, or with an empty name.
    """
    if not peer_certificate:
        return None
    names = [
        value.removeprefix(_SPIFFE_PREFIX)
        for kind, value in peer_certificate.get("subjectAltName", ())
        if kind == "URI" and value.startswith(_SPIFFE_PREFIX)
    ]
    return names[0] if len(names) == 1 and names[0] else None
