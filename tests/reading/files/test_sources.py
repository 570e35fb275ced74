"""Folders, zips and single files as streams of references."""

import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from dicom_files import make_series

from ich_lstm.errors import FileError, SeriesError, SourceError
from ich_lstm.reading import FileRef, read_scan, walk_source


def zip_folder(folder: Path, path: Path, prefix: str = "") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, prefix + str(file.relative_to(folder)))
    return path


class TestWalkSource:
    def test_finds_files_of_any_depth(self, tmp_path: Path) -> None:
        names = {"a", "b/c", "b/d/e e", "b/d/\u00fc\u4e2d.dcm", "b/line\nbreak"}
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text("x")
        assert {str(ref.path.relative_to(tmp_path)) for ref in walk_source(tmp_path)} == names

    def test_reads_names_that_are_no_text(self, tmp_path: Path) -> None:
        name = os.fsdecode(b"\xff\xfe.dcm")
        (tmp_path / name).write_text("x")
        assert [ref.path.name for ref in walk_source(tmp_path)] == [name]

    def test_single_file(self, tmp_path: Path) -> None:
        (tmp_path / "a.dcm").write_text("x")
        assert list(walk_source(tmp_path / "a.dcm")) == [FileRef(tmp_path / "a.dcm")]

    def test_zip_alone_and_in_a_folder(self, tmp_path: Path) -> None:
        for name in ("a", "b/c"):
            (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "in" / name).write_text(name)
        (tmp_path / "out").mkdir()
        path = zip_folder(tmp_path / "in", tmp_path / "out" / "x.zip")
        refs = sorted(walk_source(path), key=str)
        assert [ref.member for ref in refs] == ["a", "b/c"]
        assert sorted(walk_source(path.parent), key=str) == refs
        with refs[1].open() as stream:
            assert stream.read() == b"b/c"
        assert refs[1].size() == 3

    def test_zip_is_known_by_its_bytes(self, tmp_path: Path) -> None:
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "a").write_text("x")
        path = zip_folder(tmp_path / "in", tmp_path / "export")
        assert [ref.member for ref in walk_source(path)] == ["a"]

    def test_missing_path(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError) as error:
            list(walk_source(tmp_path / "nowhere"))
        assert error.value.code == "missing_path"
        assert error.value.todo

    @pytest.mark.parametrize("make", ["folder", "nested", "zip"])
    def test_empty(self, make: str, tmp_path: Path) -> None:
        source = tmp_path / "empty"
        if make == "zip":
            zipfile.ZipFile(source, "w").close()
        else:
            (source / "deeper" if make == "nested" else source).mkdir(parents=True)
        with pytest.raises(SourceError) as error:
            list(walk_source(source))
        assert error.value.code == "empty_folder"

    def test_links_are_not_followed(self, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "a").write_text("x")
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "b").write_text("x")
        (tmp_path / "in" / "link").symlink_to(tmp_path / "out", target_is_directory=True)
        problems: list[tuple[FileRef, FileError]] = []
        refs = list(walk_source(tmp_path / "in", on_problem=lambda ref, error: problems.append((ref, error))))
        assert [ref.path.name for ref in refs] == ["b"]
        assert [error.code for _, error in problems] == ["link"]

    def test_a_link_as_the_source_itself_is_what_it_points_to(self, tmp_path: Path) -> None:
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "b").write_text("x")
        (tmp_path / "link").symlink_to(tmp_path / "in", target_is_directory=True)
        assert [ref.path.name for ref in walk_source(tmp_path / "link")] == ["b"]

    def test_pipe_is_not_opened(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "b").write_text("x")
        problems: list[str] = []
        assert len(list(walk_source(tmp_path, on_problem=lambda ref, error: problems.append(error.code)))) == 1
        assert problems == ["special_file"]
        with pytest.raises(SourceError):
            list(walk_source(tmp_path / "pipe"))


class TestArchives:
    def test_damaged_zip(self, tmp_path: Path) -> None:
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "a").write_bytes(bytes(5000))
        path = zip_folder(tmp_path / "in", tmp_path / "x.zip")
        path.write_bytes(path.read_bytes()[:40])
        with pytest.raises(SourceError) as error:
            list(walk_source(path))
        assert error.value.code == "bad_archive"

    def test_encrypted_member(self, tmp_path: Path) -> None:
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "a").write_text("x")
        path = zip_folder(tmp_path / "in", tmp_path / "x.zip")
        data = bytearray(path.read_bytes())
        for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            at = data.index(magic) + offset
            data[at : at + 2] = struct.pack("<H", 1)
        path.write_bytes(data)
        (ref,) = walk_source(path)
        with pytest.raises(FileError) as error:
            ref.open()
        assert error.value.code == "encrypted"

    def test_a_zip_that_changes_is_read_anew(self, tmp_path: Path) -> None:
        (tmp_path / "in").mkdir()
        for text in ("first", "second one"):
            (tmp_path / "in" / "a").write_text(text)
            (ref,) = walk_source(zip_folder(tmp_path / "in", tmp_path / "x.zip"))
            with ref.open() as stream:
                assert stream.read().decode() == text

    def test_zip_and_folder_give_the_same_scan(self, tmp_path: Path) -> None:
        make_series(tmp_path / "in" / "PAT" / "ST1")
        path = zip_folder(tmp_path / "in", tmp_path / "x.zip", prefix="export/")
        from_zip, from_folder = read_scan(path), read_scan(tmp_path / "in")
        assert (from_zip.hu == from_folder.hu).all()
        assert from_zip.sop_uids == from_folder.sop_uids

    @pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    def test_flipped_bit_in_the_pixels_is_found_by_the_checksum(self, method: int, tmp_path: Path) -> None:
        noise = np.random.default_rng(0).integers(0, 100, (256, 256))  # too large to be read along with the header
        paths = make_series(tmp_path / "in", 5, hu=noise)
        with zipfile.ZipFile(tmp_path / "x.zip", "w", method) as archive:
            for path in paths:
                archive.write(path, path.name)
        with zipfile.ZipFile(tmp_path / "x.zip") as archive:
            middle = archive.getinfo("4.dcm").header_offset - 1000
        data = bytearray((tmp_path / "x.zip").read_bytes())
        data[middle] ^= 0x10
        (tmp_path / "x.zip").write_bytes(data)
        with pytest.raises(SeriesError) as error:
            read_scan(tmp_path / "x.zip")
        assert error.value.code == "unreadable"
