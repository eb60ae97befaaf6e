"""C2PA manifests: sign files with a user's certificate, and read what a manifest claims and whether it holds.

The only module that needs c2pa-python. It never connects to the network. It does not judge whom a certificate belongs
to: that is known only for certificates below a root that the reader trusts.
"""

import base64
import io
import json
import re
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from PIL import Image

from cardigan.errors import CardiganError, first_line
from cardigan.figures.marking import SOURCE_TYPE, Mark

SETTINGS = {
    "verify": {"verify_trust": True, "remote_manifest_fetch": False, "ocsp_fetch": False},
    "builder": {"thumbnail": {"enabled": False}},
}
KEY_ALGORITHMS = {
    "06082a8648ce3d030107": "es256",
    "06052b81040022": "es384",
    "06052b81040023": "es512",
    "06032b6570": "ed25519",
    "06092a864886f70d010101": "ps256",
}
"""Signature algorithm by the object identifier of the kind of key: P-256, P-384, P-521, Ed25519 and RSA."""
MANIFEST_MARKER = b"jumdc2pa"
"""What a file with an embedded manifest contains: the start of its outermost box."""
MEDIA_TYPES = {b"\x89PNG": "image/png", b"\xff\xd8": "image/jpeg"}
"""Media type by the first bytes of a file; others are WebP."""
UNTRUSTED, TRUSTED, SIGNED = "signingCredential.untrusted", "signingCredential.trusted", "claimSignature.validated"
"""Codes of C2PA's validation."""


@dataclass(frozen=True)
class SigningKey:
    """A certificate chain, the signer's own certificate first, and its private key. Create one with `signing_key`."""

    certificates: bytes
    private_key: bytes = field(repr=False)
    algorithm: str = "es256"


@dataclass(frozen=True)
class Manifest:
    """What a C2PA manifest claims about a file, and what was found when it was checked."""

    claims: str
    """What the claim says about how the file was made. Empty: nothing."""
    source_type: str
    """IPTC's digital source type in the claim, without its address, such as trainedAlgorithmicMedia."""
    generator: str
    """The program that wrote the claim."""
    signer: str
    """Whom the certificate names. Without `trusted`, anyone can have written this."""
    valid: bool
    """Whether the signature is that of the certificate, and the file has not changed since."""
    trusted: bool
    """Whether the certificate is below a trusted root."""
    problems: tuple[str, ...] = ()
    """Why it is not valid."""


def signing_key(certificates: Path, private_key: Path) -> SigningKey:
    """Read a certificate chain and its private key from PEM files, and sign a test image with them.

    Raises CardiganError for files that do not contain them, for an encrypted key, and if C2PA does not accept them.
    """
    chain = _pem(certificates, "CERTIFICATE", "a certificate chain in PEM format, the signer's certificate first")
    key = _pem(private_key, "PRIVATE KEY", "its private key in PEM format, without a password")
    signing = SigningKey(chain, key, _algorithm(private_key, key))
    buffer = io.BytesIO()
    Image.new("L", (1, 1)).save(buffer, "PNG")
    try:
        sign_image(signing, buffer.getvalue(), "image/png", "a test")
    except CardiganError as error:
        raise CardiganError(f"{certificates} with {private_key} cannot sign C2PA manifests: {error}") from error
    return signing


def sign_image(signing: SigningKey, content: bytes, media_type: str, description: str) -> bytes:
    """Return a PNG, JPEG or WebP file with a signed manifest: a trained model generated it, as `description` says."""
    out = io.BytesIO()
    sign(signing, [created_action(SOURCE_TYPE, description)], media_type, io.BytesIO(content), out)
    return out.getvalue()


def with_manifest(content: bytes, media_type: str, mark: Mark | None, signing: SigningKey | None) -> bytes:
    """Return an image file with a signed manifest that says what its mark says, or unchanged without a key."""
    return content if signing is None or mark is None else sign_image(signing, content, media_type, mark.description())


def created_action(source_type: str, description: str) -> dict[str, Any]:
    """Return the assertion of how a file was made."""
    action = {"action": "c2pa.created", "digitalSourceType": source_type, "description": description}
    return {"label": "c2pa.actions.v2", "data": {"actions": [action]}}


def sign(
    signing: SigningKey,
    assertions: list[dict[str, Any]],
    media_type: str,
    file: io.BufferedIOBase,
    out: io.BufferedIOBase | None = None,
) -> bytes:
    """Sign the assertions and return the manifest. The file with the manifest goes to `out`; None embeds nothing."""
    c2pa = _import_c2pa()
    definition = {
        "claim_generator_info": [{"name": "cardigan", "version": version("cardigan")}],
        "assertions": assertions,
    }
    info = c2pa.C2paSignerInfo(signing.algorithm, signing.certificates, signing.private_key, None)
    try:
        with (
            c2pa.Signer.from_info(info) as signer,
            c2pa.Context.from_dict(SETTINGS) as context,
            c2pa.Builder(definition, context) as builder,
        ):
            if out is None:
                builder.set_no_embed()
            return bytes(builder.sign(signer, media_type, file, io.BytesIO() if out is None else out))
    except c2pa.C2paError as error:
        raise CardiganError(f"C2PA refuses it: {first_line(error, 300)}.") from error


def read_manifest(
    media_type: str,
    file: io.BufferedIOBase,
    trusted_roots: str = "",
    store: bytes | None = None,
    unchecked: frozenset[str] = frozenset(),
) -> Manifest | None:
    """Return the manifest of a file, checked, or None without one.

    `trusted_roots` are root certificates in PEM format, `store` is a manifest that the caller found, `unchecked` are
    codes of failures that the caller checks itself.
    """
    c2pa = _import_c2pa()
    settings = SETTINGS | ({"trust": {"trust_anchors": trusted_roots}} if trusted_roots else {})
    try:
        with (
            c2pa.Context.from_dict(settings) as context,
            c2pa.Reader(media_type, file, manifest_data=store, context=context) as reader,
        ):
            return _manifest(reader, unchecked)
    except c2pa.C2paError.ManifestNotFound:
        return None
    except c2pa.C2paError as error:
        return Manifest("", "", "", "", False, False, (first_line(error, 200),))


def read_image_manifest(path: Path, trusted_roots: str = "") -> Manifest | None:
    """Return the manifest of a PNG, JPEG or WebP file, checked, or None without one.

    Raises CardiganError for a file with a manifest if c2pa-python is not installed.
    """
    content = path.read_bytes()
    if MANIFEST_MARKER not in content:
        return None
    media_type = next((name for start, name in MEDIA_TYPES.items() if content.startswith(start)), "image/webp")
    return read_manifest(media_type, io.BytesIO(content), trusted_roots)


def detailed_assertions(media_type: str, file: io.BufferedIOBase, store: bytes) -> dict[str, Any]:
    """Return the assertions of a manifest by label, in detail."""
    c2pa = _import_c2pa()
    with (
        c2pa.Context.from_dict(SETTINGS) as context,
        c2pa.Reader(media_type, file, manifest_data=store, context=context) as reader,
    ):
        content = json.loads(reader.detailed_json())
    return content["manifests"][content["active_manifest"]]["assertion_store"]


def _manifest(reader: Any, unchecked: frozenset[str]) -> Manifest:
    content = reader.get_active_manifest() or {}
    results = (reader.get_validation_results() or {}).get("activeManifest", {})
    failures = [each for each in results.get("failure", []) if each.get("code") not in {UNTRUSTED, *unchecked}]
    successes = {each.get("code") for each in results.get("success", [])}
    is_valid = SIGNED in successes and not failures
    action = next(
        (
            action
            for assertion in content.get("assertions", [])
            if str(assertion.get("label", "")).startswith("c2pa.actions")
            for action in assertion.get("data", {}).get("actions", [])
            if action.get("action") == "c2pa.created"
        ),
        {},
    )
    generator = (content.get("claim_generator_info") or [{}])[0]
    signature = content.get("signature_info") or {}
    names = [str(signature[key]) for key in ("issuer", "common_name") if signature.get(key)]
    return Manifest(
        claims=str(action.get("description") or ""),
        source_type=str(action.get("digitalSourceType") or "").rpartition("/")[2],
        generator=f"{generator.get('name', '')} {generator.get('version', '')}".strip(),
        signer=", ".join(names),
        valid=is_valid,
        trusted=is_valid and TRUSTED in successes,
        problems=tuple(str(each.get("explanation") or each.get("code")) for each in failures),
    )


def _import_c2pa() -> Any:
    try:
        import c2pa
    except ImportError as error:
        raise CardiganError("C2PA manifests need c2pa-python: pip install 'cardigan[c2pa]'.") from error
    return c2pa


def _pem(path: Path, kind: str, expected: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CardiganError(
            f"Cannot read {path}: {(error.strerror or str(error)).lower()}. Give {expected}."
        ) from error
    if f"{kind}-----".encode() not in content or b"ENCRYPTED" in content:
        raise CardiganError(f"{path} is not what C2PA needs: expected {expected}.")
    return content


def _algorithm(path: Path, key: bytes) -> str:
    """Return the signature algorithm of a private key: its file names the kind of key."""
    if b"BEGIN RSA PRIVATE KEY" in key:
        return "ps256"
    blocks = re.findall(rb"-----BEGIN [A-Z ]*-----\s([^-]*)-----END", key)
    content = b"".join(base64.b64decode(block) for block in blocks).hex()
    algorithm = next((name for identifier, name in KEY_ALGORITHMS.items() if identifier in content), None)
    if algorithm is None:
        raise CardiganError(f"{path} is no key that C2PA signs with: expected P-256, P-384, P-521, Ed25519 or RSA.")
    return algorithm
