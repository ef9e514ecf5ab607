"""What a file really is, by its first bytes: told where it is not what its name says."""

from __future__ import annotations

from pathlib import Path

from valence.errors import DataError

HEAD = 512
LFS = "a Git LFS pointer instead of the file; fetch it with: git lfs pull"
HTML = "an HTML page instead of the file; download it again"
GZIP = "gzip-compressed; unpack it with gunzip"
_MARKS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", LFS),
    (b"\x1f\x8b", GZIP),
    (b"BZh", "bzip2-compressed; unpack it with bunzip2"),
    (b"\xfd7zXZ\0", "xz-compressed; unpack it with unxz"),
    (b"\x28\xb5\x2f\xfd", "zstd-compressed; unpack it with unzstd"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it"),
    (b"Rar!", "a RAR archive; unpack it"),
    (b"PK\x03\x04", "a ZIP archive (torch.save writes such files too); unpack or convert it"),
    (b"PAR1", "a Parquet file; name it .parquet"),
    (b"\x89HDF", "an HDF5 file; convert it"),
    (b"\x93NUMPY", "a NumPy file (.npy); convert it"),
    (b"SQLite format 3\0", "an SQLite database; read it as sqlite:///FILE"),
    (b"%PDF", "a PDF; export a table"),
    (b"\xd0\xcf\x11\xe0", "an old Office file; save it as .xlsx or .csv"),
    (b"<!doctype html", HTML),
    (b"<html", HTML),
)
OWN = {
    ".xlsx": b"PK\x03\x04", ".ods": b"PK\x03\x04", ".parquet": b"PAR1", ".gz": b"\x1f\x8b",
    ".bz2": b"BZh", ".xz": b"\xfd7zXZ\0", ".zst": b"\x28\xb5\x2f\xfd", ".zip": b"PK\x03\x04",
}  # fmt: skip
"""The first bytes that a file of a name must have; those without any are text or a pickle."""


def kind_of(head: bytes) -> str | None:
    """What the first bytes show; None where nothing is known of them."""
    plain = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for mark, kind in _MARKS:
        if head.startswith(mark) or (mark.startswith(b"<") and plain.startswith(mark)):
            return kind
    return None


def refuse_foreign(path: Path) -> None:
    """Refuse a file that is of another kind than its name says.

    Raises:
        DataError: naming the kind and what to do.
        OSError: if it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(HEAD)
    own = OWN.get(path.suffix.lower())
    kind = kind_of(head)
    if kind is not None and not (own and head.startswith(own)):
        raise DataError(f"{path} is {kind}")
