"""The archive of an entry: files stored as they are, the same bytes for the same content, read without trust.

Nothing is compressed, so what an archive holds is never larger than the archive itself, and samples are compressed
already.
"""

from __future__ import annotations

import hashlib
import re
import stat
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from srbench.errors import RecordError, one_line
from srbench.files.atomic import sweep_beside, write_bytes

ENTRY_FILE = "entry.json"
MOST_BYTES = 2_000_000_000
MOST_FILES = 20_000
MOST_DIRECTORY_BYTES = 8_000_000
_DATE = (1980, 1, 1, 0, 0, 0)
_OTHER_KIND = "is a kind of zip that 'srbench pack' never writes"
_END = struct.Struct("<4s4H2LH")  # the end of a zip: signature, disks, counts, size and place of the directory, comment
_NAME = re.compile(r"entry\.json|records(/(?!\.)[A-Za-z0-9._+=@~-]{1,250}){3}/(record\.json|samples\.parquet)")


def write_zip(path: Path, files: Mapping[str, bytes]) -> None:
    """Write an archive atomically, and remove what a killed run left of it; the same files give the same bytes.

    Raises:
        RecordError: If the disk fails.
    """

    def write(stream: BinaryIO) -> None:
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED, allowZip64=False) as archive:
            for name in sorted(files):
                info = zipfile.ZipInfo(name, _DATE)
                info.create_system = 3
                info.external_attr = (stat.S_IFREG | 0o644) << 16
                archive.writestr(info, files[name])

    sweep_beside([path])
    try:
        write_bytes(path, write)
    except zipfile.LargeZipFile:
        raise RecordError(f"{path}: a zip holds 2 GB, the records are more; pack fewer folders") from None


def read_zip(path: Path) -> dict[str, bytes]:
    """Return the files of an archive that anybody may have made.

    Raises:
        RecordError: If it is no zip, or holds anything that `write_zip` does not write: links, folders, names outside
            `records/`, one name twice, compressed or encrypted files, more than there is room for.
    """
    _check_end(path)
    try:
        with _opened(path) as archive:
            infos = archive.infolist()
            _check_members(path, infos)
            return {info.filename: archive.read(info) for info in infos}
    except (OSError, EOFError, zipfile.BadZipFile, ValueError, struct.error) as error:
        raise RecordError(f"{path} is damaged ({one_line(error)}); ask for it again") from None


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except NotImplementedError as error:  # the version that a member says it needs, which zipfile looks at
        raise RecordError(f"{path} {_OTHER_KIND} ({one_line(error)}); ask for it again") from None


def sha256(content: bytes) -> str:
    """Return the hexadecimal hash of a file's content."""
    return hashlib.sha256(content).hexdigest()


def _check_end(path: Path) -> None:
    """Look at the end of the archive, which says how much there is, before anything of it is read."""
    try:
        if not path.is_file():
            raise RecordError(f"{path} is no file; give the zip that 'srbench pack' wrote")
        size = path.stat().st_size
        if not _END.size <= size <= MOST_BYTES:
            raise RecordError(f"{path} holds {size} bytes; an entry holds {_END.size} to {MOST_BYTES}")
        with path.open("rb") as stream:
            stream.seek(size - _END.size)
            fields = _END.unpack(stream.read(_END.size))
    except OSError as error:
        raise RecordError(
            f"cannot read {path}: {error.strerror or error}; give the zip that 'srbench pack' wrote"
        ) from None
    signature, disk, first_disk, count_here, count, directory, start, comment = fields
    if signature != b"PK\x05\x06" or comment or disk or first_disk or count != count_here:
        raise RecordError(f"{path} does not end as a zip of 'srbench pack' does; ask for it again")
    if count > MOST_FILES or directory > MOST_DIRECTORY_BYTES:
        raise RecordError(f"{path} names {count} files in {directory} bytes; an entry has at most {MOST_FILES}")
    if start + directory != size - _END.size:
        raise RecordError(f"{path} says that its directory lies elsewhere than it does; ask for it again")


def _check_members(path: Path, infos: list[zipfile.ZipInfo]) -> None:
    seen: set[str] = set()
    total = 0
    for info in infos:
        name = info.orig_filename
        if not _NAME.fullmatch(name) or info.filename != name:
            raise RecordError(f"{path} holds {name[:120]!r}, which no entry does; nothing of it was read")
        if name in seen:
            raise RecordError(f"{path} holds {name} twice; nothing of it was read")
        seen.add(name)
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
            raise RecordError(f"{path}: {name} is a link or no plain file; nothing of it was read")
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 0x1 or info.compress_size != info.file_size:
            raise RecordError(f"{path}: {name} is compressed or encrypted, which 'srbench pack' never does")
        if info.flag_bits:
            raise RecordError(f"{path} {_OTHER_KIND} ({name} has flags {info.flag_bits:#x}); ask for it again")
        total += info.file_size
    if total > path.stat().st_size:
        raise RecordError(f"{path} says that it holds {total} bytes, more than it has; nothing of it was read")
