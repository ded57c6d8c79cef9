"""TLS: a certificate is made once, fits this machine, and is made again when it no longer does."""

import datetime
import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509

from agent.errors import ConfigError
from agent.server import tls
from agent.server.tls import load_tls, machine_names, self_signed

NAMES = ["localhost", "127.0.0.1", "::1", "desk.local"]


def test_a_certificate_is_valid_for_every_name(tmp_path: Path) -> None:
    certificate, _, fingerprint = self_signed(tmp_path / "tls", NAMES)
    made = x509.load_pem_x509_certificate(certificate.read_bytes())
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in names] == NAMES
    assert made.not_valid_after_utc - made.not_valid_before_utc < datetime.timedelta(days=398)
    assert len(fingerprint.split(":")) == 32


def test_a_certificate_is_kept(tmp_path: Path) -> None:
    first = self_signed(tmp_path / "tls", NAMES)
    assert self_signed(tmp_path / "tls", NAMES[:2]) == first


def test_another_network_needs_another_certificate(tmp_path: Path) -> None:
    _, _, first = self_signed(tmp_path / "tls", NAMES)
    _, _, second = self_signed(tmp_path / "tls", [*NAMES, "192.168.7.7"])
    assert first != second


def test_one_that_is_about_to_expire_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "_VALID", datetime.timedelta(days=7))
    _, _, first = self_signed(tmp_path / "tls", NAMES)
    monkeypatch.undo()
    _, _, second = self_signed(tmp_path / "tls", NAMES)
    assert first != second


@pytest.mark.parametrize("damage", ["certificate.pem", "key.pem"])
def test_damaged_files_are_replaced(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "tls"
    self_signed(folder, NAMES)
    (folder / damage).unlink()
    certificate, key, _ = self_signed(folder, NAMES)
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)


def test_nobody_else_reads_the_key(tmp_path: Path) -> None:
    _, key, _ = self_signed(tmp_path / "tls", NAMES)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700


def test_the_machine_knows_its_names() -> None:
    names = machine_names()
    assert {"localhost", "127.0.0.1", "::1"} <= set(names)
    assert len(names) == len(set(names))


def test_files_of_the_user_are_taken_whatever_their_names(tmp_path: Path) -> None:
    certificate, key, _ = self_signed(tmp_path / "odd:name", NAMES)
    assert load_tls(f"{certificate}:{key}", NAMES).fingerprint is None


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        ("yes", "CERT:KEY"),
        ("{folder}/no.pem:{folder}/key.pem", "no.pem is not a file"),
        ("{folder}/certificate.pem:{folder}/no.pem", "no.pem is not a file"),
        ("{folder}/key.pem:{folder}/key.pem", "not a certificate"),
        ("{folder}/certificate.pem:{folder}/other.pem", "not a certificate and its key"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(tmp_path: Path, choice: str, told: str) -> None:
    _, key, _ = self_signed(tmp_path, NAMES)
    other = tmp_path / "other"
    self_signed(other, NAMES)
    (other / "key.pem").rename(tmp_path / "other.pem")
    assert key.exists()
    with pytest.raises(ConfigError, match=told) as caught:
        load_tls(choice.format(folder=tmp_path), NAMES)
    assert "\n" not in str(caught.value)
