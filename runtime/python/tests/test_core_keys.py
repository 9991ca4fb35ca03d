"""Bundles that are loaded only if one of the named keys signed them."""

import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import trit

TEXT = "Once upon a time"


def command(*arguments: object) -> None:
    line = [sys.executable, "-m", "trit", *map(str, arguments)]
    subprocess.run(line, check=True, capture_output=True, timeout=120, stdin=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def signed(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bundle, its signature, and the keys of who signed it and of somebody else."""
    folder = tmp_path_factory.mktemp("signed")
    shutil.copyfile(bundle, folder / "model.trit")
    for name in ["vendor", "other"]:
        command("keygen", folder / name)
    command("sign", folder / "model.trit", "--key", folder / "vendor")
    return folder


@pytest.fixture(autouse=True)
def no_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That these tests compiled the bundle themselves must not be what trusts it."""
    monkeypatch.setenv("TRIT_TRUST_DIR", str(tmp_path / "trusted"))


def test_who_signed_a_bundle_is_trusted(signed: Path) -> None:
    bundle, vendor, other = signed / "model.trit", signed / "vendor.pub", signed / "other.pub"
    with pytest.raises(trit.UntrustedError):
        trit.Model(bundle, kernels="embedded")
    for key in [vendor, str(vendor), [vendor], (other, str(vendor))]:
        with trit.Model(bundle, key=key, kernels="embedded") as model:
            assert "embedded" in repr(model)


def test_a_bundle_that_the_key_did_not_sign_is_not_loaded(signed: Path, bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(trit.UntrustedError, match=r"signed by ed25519:.*pass its file with key=") as raised:
        trit.Model(signed / "model.trit", key=signed / "other.pub")
    assert Path(raised.value.path) == signed / "model.trit" and str(signed / "model.trit") in str(
        raised.value
    )
    # Neither is one without a signature, nor one whose signature was changed, whatever kernels are to run.
    with pytest.raises(trit.UntrustedError, match=r"not signed.*\.sig"):
        trit.Model(bundle, key=signed / "vendor.pub", kernels="portable")
    copy = tmp_path / "model.trit"
    shutil.copyfile(signed / "model.trit", copy)
    signature = (signed / "model.trit.sig").read_text()
    changed = signature[:-2] + ("0" if signature[-2] != "0" else "1") + "\n"
    (tmp_path / "model.trit.sig").write_text(changed)
    with pytest.raises(trit.UntrustedError, match="copy the bundle and its signature again"):
        trit.Model(copy, key=signed / "vendor.pub", kernels="portable")
    # A signature that holds is no reason to read what was changed.
    (tmp_path / "model.trit.sig").write_text(signature)
    damaged = bytearray(copy.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    copy.write_bytes(damaged)
    with pytest.raises(trit.BundleError, match="model.trit"):
        trit.Model(copy, key=signed / "vendor.pub", kernels="portable")


def test_the_file_of_a_key_must_be_one(signed: Path, tmp_path: Path) -> None:
    def load(key: object, **options: object) -> None:
        trit.Model(signed / "model.trit", key=key, **options)  # type: ignore[arg-type]

    absent = tmp_path / "absent.pub"
    with pytest.raises(FileNotFoundError, match="absent.pub") as raised:
        load(absent)
    assert raised.value.filename == str(absent)
    malformed = tmp_path / "malformed.pub"
    malformed.write_text("no key")
    with pytest.raises(ValueError, match=r"key: .*malformed\.pub.*pass the file of a public key"):
        load([signed / "vendor.pub", malformed])
    with pytest.raises(
        ValueError, match=r"it is a private key; the public one is in the file that ends in \.pub"
    ):
        load(signed / "vendor")
    with pytest.raises(ValueError, match="no regular file"):
        load(tmp_path)
    others = tmp_path / "others.pub"
    shutil.copyfile(signed / "vendor.pub", others)
    others.chmod(0o666)
    with pytest.raises(trit.UntrustedError, match=r"others\.pub.*chmod go-w") as refused:
        load(others)
    assert Path(refused.value.path) == others
    for key, error, words in [
        (7, TypeError, "key must be a str, a pathlib.Path or a list of them, not int"),
        ([None], TypeError, r"key\[0\] must be"),
        ([], ValueError, "key is empty"),
        ("", ValueError, "key is empty"),
    ]:
        with pytest.raises(error, match=words):
            load(key)
    with pytest.raises(ValueError, match="trust=True.*key="):
        load(signed / "vendor.pub", trust=True)


def test_a_pickle_asks_for_the_key_again(
    signed: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(signed)
    with trit.Model("model.trit", key="vendor.pub", kernels="embedded") as model:
        pickled = pickle.dumps(model)
        text = model.generate(TEXT, max_tokens=5, temperature=0).text
    # Where a pickle is read, paths mean the same.
    monkeypatch.chdir(tmp_path)
    with pickle.loads(pickled) as again:
        assert again.generate(TEXT, max_tokens=5, temperature=0).text == text
    kept = (signed / "model.trit.sig").read_bytes()
    (signed / "model.trit.sig").unlink()
    try:
        with pytest.raises(trit.UntrustedError, match="not signed"):
            pickle.loads(pickled)
    finally:
        (signed / "model.trit.sig").write_bytes(kept)
