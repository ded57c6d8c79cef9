"""TLS: a certificate of the user's, or one made here for this machine's names and addresses, as an SSL context.

A certificate that nobody vouches for makes browsers warn once; behind it a phone on the same network gets its
microphone, which browsers give to pages over HTTPS only. It is kept, so that the warning is accepted once, and made
again when it is about to expire or the machine has come to another network.
"""

import ipaddress
import os
import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from agent.data_folder import data_folder
from agent.errors import ConfigError, one_line

if TYPE_CHECKING:
    from cryptography import x509

SELF_SIGNED = "self-signed"
_VALID = timedelta(days=397)
"""The most that Apple's systems take"""
_RENEW = timedelta(days=14)
_NOWHERE = {socket.AF_INET: ("192.0.2.1", 9), socket.AF_INET6: ("2001:db8::1", 9)}
"""Addresses kept for documentation (RFC 5737, RFC 3849): asked for the way to them, nothing is sent"""


@dataclass(frozen=True, slots=True)
class Tls:
    """What the server speaks TLS with."""

    context: ssl.SSLContext
    fingerprint: str | None
    """SHA-256 of a certificate that nobody vouches for, for people to compare"""


def load_tls(choice: str, names: Sequence[str]) -> Tls:
    """The certificate that was chosen.

    Args:
        choice: `self-signed`, or CERT:KEY.
        names: names and addresses for which a certificate made here is valid.

    Raises:
        ConfigError: the files are missing, or are not a certificate and its key.
    """
    if choice == SELF_SIGNED:
        certificate, key, fingerprint = self_signed(data_folder() / "tls", names)
        return Tls(_context(certificate, key), fingerprint)
    certificate, key = _two_files(choice)
    return Tls(_context(certificate, key), None)


def machine_names() -> list[str]:
    """By which names and addresses this machine is reached from its own networks; asks no name server."""
    name = socket.gethostname()
    names = ["localhost", name]
    if "." not in name:
        names.append(f"{name}.local")
    return [*dict.fromkeys(names), "127.0.0.1", "::1", *lan_addresses()]


def lan_addresses() -> list[str]:
    """Addresses of this machine that others on its network use."""
    found = []
    for family, nowhere in _NOWHERE.items():
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(nowhere)
            found.append(probe.getsockname()[0].partition("%")[0])
    return [address for address in found if not ipaddress.ip_address(address).is_loopback]


def self_signed(folder: Path, names: Sequence[str]) -> tuple[Path, Path, str]:
    """A certificate and its key, made unless one that fits is there; and its fingerprint."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    certificate, key = folder / "certificate.pem", folder / "key.pem"
    with suppress(OSError, ValueError):
        known = x509.load_pem_x509_certificate(certificate.read_bytes())
        if _fits(known, names) and key.exists():
            return certificate, key, _spelled(known.fingerprint(hashes.SHA256()))
    made = _make(certificate, key, names)
    return certificate, key, _spelled(made.fingerprint(hashes.SHA256()))


def _fits(certificate: "x509.Certificate", names: Sequence[str]) -> bool:
    from cryptography import x509

    now = datetime.now(UTC)
    if not certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc - _RENEW:
        return False
    try:
        known = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    return set(names) <= {str(name.value) for name in known}


def _make(certificate: Path, key: Path, names: Sequence[str]) -> "x509.Certificate":
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    private = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Noema on this machine")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + _VALID)
        .add_extension(x509.SubjectAlternativeName([_name(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(private, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = private.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    certificate.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # The key first: a certificate that is there has its key.
    certificate.unlink(missing_ok=True)
    _write(key, secret)
    _write(certificate, made.public_bytes(pem))
    return made


def _write(path: Path, content: bytes) -> None:
    """Readable by this user only, and whole or not there at all."""
    aside = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(content)
        aside.rename(path)
    finally:
        aside.unlink(missing_ok=True)


def _name(name: str) -> "x509.GeneralName":
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _spelled(digest: bytes) -> str:
    return digest.hex(":").upper()


def _two_files(choice: str) -> tuple[Path, Path]:
    """CERT:KEY. Either may hold a colon: the split that gives two files is the one that was meant."""
    places = [place for place, letter in enumerate(choice) if letter == ":"]
    pairs = [(Path(choice[:place]).expanduser(), Path(choice[place + 1 :]).expanduser()) for place in places]
    for certificate, key in pairs:
        if certificate.is_file() and key.is_file():
            return certificate, key
    if not pairs:
        raise ConfigError(f"--tls {choice}: give {SELF_SIGNED}, or two files as CERT:KEY")
    missing = next(path for path in pairs[0] if not path.is_file())
    raise ConfigError(f"--tls: {missing} is not a file; give a certificate and its key as CERT:KEY")


def _context(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except ssl.SSLError as error:
        reason = (error.reason or "").replace("_", " ").lower()
        raise ConfigError(f"{certificate} and {key}: not a certificate and its key in PEM ({reason})") from error
    except OSError as error:
        raise ConfigError(f"{certificate} or {key}: {one_line(error)}") from error
    return context


def _no_password() -> str:
    raise ConfigError("the key is locked with a password; give one without (openssl pkey -in KEY -out PLAIN)")
