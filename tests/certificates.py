"""Certificates for signatures in tests: a root, and below it the signer's certificate with its key."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PEM = serialization.Encoding.PEM
USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


@dataclass(frozen=True)
class Chain:
    """Paths of PEM files: the chain, its private key, the root alone."""

    certificates: Path
    key: Path
    root: Path


def write_chain(folder: Path, curve: ec.EllipticCurve | None = None) -> Chain:
    """Write a new chain that C2PA accepts."""
    folder.mkdir()
    root_key, key = (ec.generate_private_key(curve or ec.SECP256R1()) for _ in range(2))
    root = _certificate("Root", root_key, "Root", root_key, None)
    signer = _certificate("Signer", key, "Root", root_key, ExtendedKeyUsageOID.EMAIL_PROTECTION)
    chain = Chain(folder / "chain.pem", folder / "key.pem", folder / "root.pem")
    chain.certificates.write_bytes(signer.public_bytes(PEM) + root.public_bytes(PEM))
    chain.root.write_bytes(root.public_bytes(PEM))
    chain.key.write_bytes(key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return chain


def _certificate(
    name: str, key: ec.EllipticCurvePrivateKey, issuer: str, issuer_key: ec.EllipticCurvePrivateKey, usage
) -> x509.Certificate:
    """Return a certificate; one without a `usage` signs other certificates."""
    wanted = {"digital_signature"} if usage else {"key_cert_sign", "crl_sign"}
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.BasicConstraints(usage is None, None), True)
        .add_extension(x509.KeyUsage(**{each: each in wanted for each in USAGES}), True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), False)
    )
    if usage:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), False)
    return builder.sign(issuer_key, hashes.SHA256())


def _name(text: str) -> x509.Name:
    organization = x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Maker")
    return x509.Name([organization, x509.NameAttribute(NameOID.COMMON_NAME, text)])
