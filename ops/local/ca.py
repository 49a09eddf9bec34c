"""The local certificate authority: one leaf per identity, so that every connection of the stack proves who it is.

Common name: the identity (Kafka's principal). URI name: `spiffe://payments.local/<identity>` (Cassandra's identity).
"""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ops.local.layout import Home, write_atomically

TRUST_DOMAIN = "payments.local"
LOOPBACK = ("127.0.0.1", "127.0.0.2", "127.0.0.3")  # three Cassandra nodes; without all of them nodes stay alone
AUTHORITY_DAYS = 3650
LEAF_DAYS = 397
RENEW_BEFORE = timedelta(days=30)
CLOCK_SLACK = timedelta(days=1)  # valid a little in the past: machines' clocks differ


def spiffe_uri(identity: str) -> str:
    return f"spiffe://{TRUST_DOMAIN}/{identity}"


def ensure_certificates(home: Home, identities: tuple[str, ...], now: datetime | None = None) -> None:
    """Have an authority and a valid leaf for each identity; what exists and is not about to expire is kept."""
    now = now or datetime.now(UTC)
    authority_key, authority = _ensure_authority(home, now)
    for identity in identities:
        if not _is_current(home, identity, authority, now):
            issue(home, identity, authority_key, authority, now)


def _ensure_authority(home: Home, now: datetime) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key_file = home.path("tls", "ca.key")
    if key_file.exists() and home.ca.exists():
        key = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
        assert isinstance(key, ec.EllipticCurvePrivateKey), "the authority's key is made below"
        return key, x509.load_pem_x509_certificate(home.ca.read_bytes())
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "payments local authority")])
    authority = (
        _builder(name, name, key, now, AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    write_atomically(key_file, _pkcs8(key))
    write_atomically(home.ca, authority.public_bytes(serialization.Encoding.PEM), mode=0o644)
    return key, authority


def issue(
    home: Home, identity: str, authority_key: ec.EllipticCurvePrivateKey, authority: x509.Certificate, now: datetime
) -> None:
    """Write `<identity>.key`, `.pem` (leaf) and `.bundle.pem` (key, leaf, authority: the JVM servers' form)."""
    key = ec.generate_private_key(ec.SECP256R1())
    names: list[x509.GeneralName] = [x509.DNSName("localhost"), x509.UniformResourceIdentifier(spiffe_uri(identity))]
    names += [x509.IPAddress(ipaddress.ip_address(address)) for address in LOOPBACK]
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, identity)])
    leaf = (
        _builder(subject, authority.subject, key, now, LEAF_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    certificate, secret = leaf.public_bytes(serialization.Encoding.PEM), _pkcs8(key)
    write_atomically(home.bundle(identity), secret + certificate + home.ca.read_bytes())
    write_atomically(home.key(identity), secret)
    write_atomically(home.cert(identity), certificate, mode=0o644)


def _is_current(home: Home, identity: str, authority: x509.Certificate, now: datetime) -> bool:
    files = (home.cert(identity), home.key(identity), home.bundle(identity))
    if not all(path.exists() for path in files):
        return False
    leaf = x509.load_pem_x509_certificate(home.cert(identity).read_bytes())
    return leaf.issuer == authority.subject and leaf.not_valid_after_utc > now + RENEW_BEFORE


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SLACK)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pkcs8(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Unencrypted PKCS8: the JVM's PEM readers take neither SEC1 nor encrypted keys. The file's mode protects it."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def tls_files(home: Home, identity: str) -> tuple[Path, Path, Path]:
    """(authority, certificate, key) of an identity."""
    return home.ca, home.cert(identity), home.key(identity)
