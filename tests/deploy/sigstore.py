"""A Sigstore of our own: certificates that name an identity, both logs, and the repository that says whom to trust.

Fulcio certifies the key of a workflow by its OIDC token, a certificate log and a signature log record it, and verifiers get the
keys of all three by TUF. Here one process holds the keys, so signatures are real and made for any identity.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.deploy.registries import CONFIG, MANIFEST, Server

ISSUER = "https://token.actions.githubusercontent.com"
_PAYLOAD = "application/vnd.dev.cosign.simplesigning.v1+json"
_SHA256 = ec.ECDSA(hashes.SHA256())


def _key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _der(key: ec.EllipticCurvePrivateKey) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.DER, form)


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _canonical(content: Any) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


@dataclass(frozen=True)
class Sigstore:
    authority: ec.EllipticCurvePrivateKey = field(default_factory=_key)
    certificate_log: ec.EllipticCurvePrivateKey = field(default_factory=_key)
    signature_log: ec.EllipticCurvePrivateKey = field(default_factory=_key)

    def root(self) -> x509.Certificate:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])
        return (
            self._builder(name, self.authority)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(certificates=True), critical=True)
            .sign(self.authority, hashes.SHA256())
        )

    def certificate(
        self, key: ec.EllipticCurvePrivateKey, subject: str, issuer: str, recorded: bool = True
    ) -> x509.Certificate:
        """A certificate of an identity; the proof that it was recorded is part of it."""
        builder = (
            self._builder(x509.Name([]), key)
            .add_extension(_usage(certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
            .add_extension(
                x509.SubjectAlternativeName([x509.UniformResourceIdentifier(subject)]), critical=True
            )
            .add_extension(_extension("1.3.6.1.4.1.57264.1.1", issuer.encode()), critical=False)
        )
        before = builder.sign(self.authority, hashes.SHA256())
        if not recorded:
            return before
        moment = int(datetime.now(UTC).timestamp() * 1000)
        content = before.tbs_certificate_bytes
        signed = struct.pack(">BBQH", 0, 0, moment, 1) + hashlib.sha256(_der(self.authority)).digest()
        signed += len(content).to_bytes(3, "big") + content + struct.pack(">H", 0)
        signature = self.certificate_log.sign(signed, _SHA256)
        log = hashlib.sha256(_der(self.certificate_log)).digest()
        proof = struct.pack(">B", 0) + log + struct.pack(">QH", moment, 0)
        proof += struct.pack(">BBH", 4, 3, len(signature)) + signature
        listed = struct.pack(">HH", len(proof) + 2, len(proof)) + proof
        octets = (
            b"\x04" + (bytes([len(listed)]) if len(listed) < 128 else b"\x81" + bytes([len(listed)])) + listed
        )
        return builder.add_extension(_extension("1.3.6.1.4.1.11129.2.4.2", octets), critical=False).sign(
            self.authority, hashes.SHA256()
        )

    def sign(
        self,
        registry: Server,
        digest: str,
        subject: str,
        issuer: str = ISSUER,
        image: str = "espalier",
        signatures: str = "espalier-signatures",
        certified: bool = True,
        recorded: bool = True,
    ) -> None:
        """Sign an image as cosign does, in the form that is a tag of the signatures' repository.

        Args:
            registry: where image and signatures are.
            digest: the image's.
            subject: who signs.
            issuer: who vouches for the subject.
            image: the repository of the image.
            signatures: the repository of its signatures.
            certified: whether the certificate was recorded.
            recorded: whether the signature was.
        """
        key = _key()
        encoding = serialization.Encoding.PEM
        certificate = self.certificate(key, subject, issuer, certified).public_bytes(encoding)
        payload = _canonical(
            {
                "critical": {
                    "identity": {"docker-reference": f"{registry.host}/{image}"},
                    "image": {"docker-manifest-digest": digest},
                    "type": "cosign container image signature",
                },
                "optional": None,
            }
        )
        signature = _text(key.sign(payload, _SHA256))
        annotations = {
            "dev.cosignproject.cosign/signature": signature,
            "dev.sigstore.cosign/certificate": certificate.decode(),
            "dev.sigstore.cosign/chain": self.root().public_bytes(encoding).decode(),
        }
        if recorded:
            annotations["dev.sigstore.cosign/bundle"] = self._entry(payload, signature, certificate)
        layer = {"mediaType": _PAYLOAD, **registry._blob(signatures, payload), "annotations": annotations}
        config = {"architecture": "", "os": "", "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]}}
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, **registry._blob(signatures, json.dumps(config).encode())},
            "layers": [layer],
        }
        registry.put_manifest(manifest, signatures, f"{digest.replace(':', '-')}.sig")

    def _entry(self, payload: bytes, signature: str, certificate: bytes) -> str:
        """The signature log's receipt."""
        body = {
            "apiVersion": "0.0.1",
            "kind": "hashedrekord",
            "spec": {
                "data": {"hash": {"algorithm": "sha256", "value": hashlib.sha256(payload).hexdigest()}},
                "signature": {"content": signature, "publicKey": {"content": _text(certificate)}},
            },
        }
        entry = {
            "body": _text(_canonical(body)),
            "integratedTime": int(datetime.now(UTC).timestamp()),
            "logID": hashlib.sha256(_der(self.signature_log)).hexdigest(),
            "logIndex": 1,
        }
        signed = _text(self.signature_log.sign(_canonical(entry), _SHA256))
        return json.dumps({"SignedEntryTimestamp": signed, "Payload": entry})

    def _builder(self, name: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + timedelta(minutes=10))
        )

    def trusted(self) -> dict[str, Any]:
        """What verifiers trust, as Sigstore publishes it."""
        valid = {"start": "2020-01-01T00:00:00Z"}

        def log(key: ec.EllipticCurvePrivateKey, address: str) -> dict[str, Any]:
            public = {
                "rawBytes": _text(_der(key)),
                "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                "validFor": valid,
            }
            identity = {"keyId": _text(hashlib.sha256(_der(key)).digest())}
            return {"baseUrl": address, "hashAlgorithm": "SHA2_256", "publicKey": public, "logId": identity}

        root = _text(self.root().public_bytes(serialization.Encoding.DER))
        return {
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [log(self.signature_log, "https://rekor.invalid")],
            "ctlogs": [log(self.certificate_log, "https://ctfe.invalid")],
            "certificateAuthorities": [
                {
                    "subject": {"organization": "authority", "commonName": "authority"},
                    "uri": "https://fulcio.invalid",
                    "certChain": {"certificates": [{"rawBytes": root}]},
                    "validFor": valid,
                }
            ],
            "timestampAuthorities": [],
        }

    @contextmanager
    def published(self, folder: Path) -> Iterator[dict[str, Any]]:
        """Serve the trusted keys by TUF; what a policy has to say of it."""
        root = _publish(folder, _canonical(self.trusted()))
        handler = partial(_Quiet, directory=str(folder))
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield {"mirror": f"http://127.0.0.1:{server.server_port}", "root": {"data": _text(root)}}
        finally:
            server.shutdown()
            server.server_close()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


def _usage(*, certificates: bool) -> x509.KeyUsage:
    names = (
        "content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only", "decipher_only",
    )  # fmt: skip
    others = dict.fromkeys(names, False)
    return x509.KeyUsage(
        digital_signature=not certificates, key_cert_sign=certificates, crl_sign=certificates, **others
    )


def _extension(identifier: str, content: bytes) -> x509.UnrecognizedExtension:
    return x509.UnrecognizedExtension(x509.ObjectIdentifier(identifier), content)


def _publish(folder: Path, target: bytes) -> bytes:
    """Write a TUF repository with one target, `trusted_root.json`; its root."""
    key = ed25519.Ed25519PrivateKey.generate()
    raw = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    public = {"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": raw.hex()}}
    identity = hashlib.sha256(_canonical(public)).hexdigest()
    expires = (datetime.now(UTC) + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")

    def signed(kind: str, **content: Any) -> bytes:
        body = {"_type": kind, "spec_version": "1.0", "version": 1, "expires": expires, **content}
        signature = {"keyid": identity, "sig": key.sign(_canonical(body)).hex()}
        return json.dumps({"signed": body, "signatures": [signature]}).encode()

    def described(content: bytes) -> dict[str, Any]:
        return {"length": len(content), "hashes": {"sha256": hashlib.sha256(content).hexdigest()}}

    role = {"keyids": [identity], "threshold": 1}
    roles = dict.fromkeys(("root", "targets", "snapshot", "timestamp"), role)
    root = signed("root", consistent_snapshot=True, keys={identity: public}, roles=roles)
    targets = signed("targets", targets={"trusted_root.json": described(target)})
    snapshot = signed("snapshot", meta={"targets.json": {"version": 1, **described(targets)}})
    timestamp = signed("timestamp", meta={"snapshot.json": {"version": 1, **described(snapshot)}})
    files = {"1.root.json": root, "root.json": root, "1.targets.json": targets, "1.snapshot.json": snapshot}
    files["timestamp.json"] = timestamp
    files[f"targets/{hashlib.sha256(target).hexdigest()}.trusted_root.json"] = target
    (folder / "targets").mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return root
