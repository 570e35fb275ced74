"""Archives, links, disks, and names."""

import errno
import io
import os
import shutil
import tarfile
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dicom_files import make_series, make_slice

from catalogue.case import Expect, Make, Variant, beside, refused, refused_beside, skipped, used, whole


def zipped(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    """A zip with members of any name, also of such that ``zipfile`` would put right."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return path


def hostile_zip(name: str) -> Make:
    """A sound series, and a zip with one member of a hostile name."""
    return beside(lambda folder: zipped(folder / "evil.zip", {"fine.dcm": (folder / "0.dcm").read_bytes(), name: b"x"}))


def _zip_alone(folder: Path) -> None:
    paths = make_series(folder / "in")
    zipped(folder / "x.zip", {f"PAT/ST1/{path.name}": path.read_bytes() for path in paths})


def tarred(path: Path, members: dict[str, bytes | tarfile.TarInfo], mode: str = "w") -> Path:
    """A tar with members of any name and kind."""
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in members.items():
            if isinstance(data, tarfile.TarInfo):
                archive.addfile(data)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def halved(path: Path) -> None:
    """Cut a file in two."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    """A link, device or pipe for a tar."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def sound(folder: Path) -> dict[str, bytes]:
    """The files of a sound series, as members."""
    return {f"PAT/ST1/{path.name}": path.read_bytes() for path in make_series(folder / "made")}


def packed(pack: Callable[[Path, dict[str, bytes]], object]) -> Make:
    """A sound series in an archive, and nothing beside it."""

    def make(folder: Path) -> None:
        members = sound(folder)
        shutil.rmtree(folder / "made")
        pack(folder, members)

    return make


def _as_bytes(pack: Callable[..., Path], name: str, members: dict[str, bytes], *more: Any) -> bytes:
    with tempfile.TemporaryDirectory() as scratch:
        return pack(Path(scratch) / name, members, *more).read_bytes()


def _zip_link(folder: Path) -> None:
    link = zipfile.ZipInfo("link.dcm")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(folder / "x.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")


def _twice(folder: Path, members: dict[str, bytes]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with zipfile.ZipFile(folder / "x.zip", "w") as archive:
            archive.writestr("PAT/ST1/0.dcm", b"an older version")
            for name, data in members.items():
                archive.writestr(name, data)


def _dicomdir_export(folder: Path) -> None:
    for i, path in enumerate(make_series(folder / "made")):
        place = folder / "DICOM" / "S2010"
        place.mkdir(parents=True, exist_ok=True)
        path.rename(place / f"I{10 * i}")
    (folder / "made").rmdir()
    make_slice(folder / "DICOMDIR", SOPClassUID="1.2.840.10008.1.3.10")


def _fail(*args: object, **options: object) -> Any:
    raise OSError(errno.EIO, "Input/output error")


NAMES = {"newline": "a\nb", "umlaut": "sch\u00e4del", "chinese": "\u5934", "space": " x ", "no-text": os.fsdecode(b"\xff\xfe")}
TARS = {"tar": ("x.tar", "w"), "tar-gz": ("x.tar.gz", "w:gz"), "tgz": ("x.tgz", "w:gz"), "tar-bz2": ("x.tar.bz2", "w:bz2")}
SPECIALS = {
    "symbolic": special("l.dcm", tarfile.SYMTYPE, "../../../etc/passwd"),
    "hard": special("l.dcm", tarfile.LNKTYPE, "/etc/passwd"),
}
HOSTILE = {
    "up": "../evil.dcm",
    "absolute": "/evil.dcm",
    "deep-up": "a/../../evil.dcm",
    "drive": "C:\\evil.dcm",
    "backslash": "..\\evil.dcm",
}

VARIANTS: list[Variant] = [
    Variant(row="3", name="export", make=_dicomdir_export, expect=skipped("dicomdir")),
    *(
        Variant(
            row="67",
            name=f"tar-{name}",
            make=beside(lambda folder, member=member: tarred(folder / "evil.tar", {"fine.dcm": b"x", member: b"x"})),  # type: ignore[misc]
            expect=refused_beside("archive_traversal"),
        )
        for name, member in HOSTILE.items()
    ),
    Variant(
        row="67",
        name="inside-an-archive",
        make=packed(
            lambda folder, members: zipped(folder / "x.zip", members | {"e.zip": _as_bytes(zipped, "e.zip", {"../e": b"x"})})
        ),
        source="x.zip",
        expect=Expect(slices=8, refused={"archive_traversal": 1}),
    ),
    *(
        Variant(
            row="68",
            name=f"{name}-that-is-none",
            make=packed(lambda folder, members, file=file, mode=mode: tarred(folder / file, members, mode)),  # type: ignore[misc]
            source=file,
            expect=used(),
        )
        for name, (file, mode) in TARS.items()
    ),
    *(
        Variant(
            row="68",
            name=f"{name}-in-a-folder",
            make=packed(lambda folder, members, file=file, mode=mode: tarred(folder / file, members, mode)),  # type: ignore[misc]
            expect=used(),
            files=8,
        )
        for name, (file, mode) in TARS.items()
    ),
    *(
        Variant(
            row="68",
            name=name,
            make=beside(lambda folder, file=file, mode=mode: tarred(folder / file, {"z.dcm": bytes(8 << 20)}, mode)),  # type: ignore[misc]
            expect=refused_beside("archive_bomb"),
            patch={"ich_lstm.reading.files.archives.SMALL_ARCHIVE_BYTES": 1 << 20},
        )
        for name, (file, mode) in TARS.items()
        if name != "tar"
    ),
    Variant(
        row="68",
        name="zip-in-zip",
        make=beside(lambda folder: zipped(folder / "x.zip", {"y.zip": _as_bytes(zipped, "y.zip", {"z": bytes(8 << 20)})})),
        expect=refused_beside("archive_bomb"),
        patch={"ich_lstm.reading.files.archives.SMALL_ARCHIVE_BYTES": 1 << 20},
    ),
    Variant(
        row="68",
        name="three-deep",
        make=beside(
            lambda folder: zipped(
                folder / "x.zip", {"y.zip": _as_bytes(zipped, "y.zip", {"z.zip": _as_bytes(zipped, "z.zip", {"a": b"x"})})}
            )
        ),
        expect=refused_beside("nested_archive"),
    ),
    Variant(
        row="68",
        name="tar-gz-in-zip-that-is-none",
        make=packed(
            lambda folder, members: zipped(folder / "x.zip", {"in/y.tar.gz": _as_bytes(tarred, "y.tar.gz", members, "w:gz")})
        ),
        source="x.zip",
        expect=used(),
    ),
    Variant(
        row="68",
        name="zip-in-tar-that-is-none",
        make=packed(lambda folder, members: tarred(folder / "x.tar", {"y.zip": _as_bytes(zipped, "y.zip", members)})),
        source="x.tar",
        expect=used(),
    ),
    *(
        Variant(
            row="69",
            name=f"tar-{name}",
            make=beside(lambda folder, info=info: tarred(folder / "x.tar", {"l": info})),  # type: ignore[misc]
            expect=skipped("link"),
        )
        for name, info in SPECIALS.items()
    ),
    Variant(
        row="69",
        name="tar-device",
        make=beside(lambda folder: tarred(folder / "x.tar", {"d": special("d", tarfile.CHRTYPE)})),
        expect=skipped("special_file"),
    ),
    Variant(row="69", name="zip-symbolic", make=beside(_zip_link), expect=skipped("link")),
    Variant(row="41", name="name-twice-in-a-zip", make=packed(_twice), source="x.zip", expect=skipped("duplicate_file")),
    *(
        Variant(
            row="70",
            name=f"damaged-{name}",
            make=beside(
                lambda folder, file=file, mode=mode: halved(
                    tarred(folder / file, {path.name: path.read_bytes() for path in folder.glob("*.dcm")}, mode)
                )
            ),  # type: ignore[misc]
            expect=refused_beside("bad_archive"),
        )
        for name, (file, mode) in TARS.items()
    ),
    *(
        Variant(row="67", name=f"zip-{name}", make=hostile_zip(member), expect=refused_beside("archive_traversal"))
        for name, member in HOSTILE.items()
    ),
    Variant(
        row="68",
        name="zip",
        make=beside(lambda folder: zipped(folder / "bomb.zip", {"zeros.dcm": bytes(8 << 20)})),
        expect=refused_beside("archive_bomb"),
        patch={"ich_lstm.reading.files.archives.SMALL_ARCHIVE_BYTES": 1 << 20},
    ),
    Variant(row="68", name="zip-that-is-none", make=_zip_alone, source="x.zip", expect=used()),
    Variant(
        row="69",
        name="loop",
        make=beside(lambda folder: (folder / "loop").symlink_to(folder, target_is_directory=True)),
        expect=skipped("link"),
    ),
    Variant(
        row="69",
        name="dangling",
        make=beside(lambda folder: (folder / "gone").symlink_to(folder / "nowhere")),
        expect=skipped("link"),
    ),
    Variant(
        row="69",
        name="to-a-slice",
        make=beside(lambda folder: (folder / "l.dcm").symlink_to(folder / "0.dcm")),
        expect=skipped("link"),
    ),
    Variant(row="69", name="pipe", make=beside(lambda folder: os.mkfifo(folder / "pipe")), expect=skipped("special_file")),
    Variant(
        row="70",
        name="vanished",
        make=whole(),
        meanwhile=lambda folder: (folder / "5.dcm").unlink(),
        expect=refused("unreadable"),
    ),
    Variant(
        row="70",
        name="vanished-training",
        make=whole(),
        meanwhile=lambda folder: (folder / "5.dcm").unlink(),
        training=True,
        expect=Expect(
            slices=7,
            refused={"unreadable": 1},
            flags=frozenset({"incomplete", "gap", "uneven_spacing"}),
            flag_detail="unreadable slices were excluded",
        ),
    ),
    Variant(
        row="70",
        name="i-o-error",
        make=whole(),
        patch={"ich_lstm.reading.header.header.read_dataset": _fail},
        expect=Expect(code="no_ct", refused={"unreadable": 8}),
    ),
    *(
        Variant(row="71", name=name, make=lambda folder, part=part: make_series(folder / part), expect=used())  # type: ignore[misc]
        for name, part in NAMES.items()
    ),
    Variant(row="71", name="deep", make=lambda folder: make_series(folder.joinpath(*("d" * 60))), expect=used()),
]
