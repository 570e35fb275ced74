"""Damage DICOM files in many ways and read them: whatever comes out must be pixels, or a reason of the library's own.

    python examples/fuzz_reading.py --count 20000 --seed 1 [--files FOLDER ...] [--keep FOLDER]

Made files (several transfer syntaxes), the small files that pydicom installs with itself, and files of your own are damaged: bits
flipped, cut short, elements removed, lengths that lie, transfer syntaxes swapped. Each is read in a child process, alone and, in
groups, as a series. Case N of a seed is the same in every run. Exit code 1 if a process died, took more than 10 seconds for a
file, let anything escape that is no IchLstmError, or used more than 1 GB.
"""

import argparse
import io
import json
import os
import resource
import select
import struct
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

HANG_SECONDS = 10
KILL_SECONDS = 40
MAX_MEMORY_BYTES = 10**9
MAX_SEED_BYTES = 600_000
GROUP = 20
"""Every 20th case is a series of damaged slices."""

SYNTAXES = (
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.201",
    "1.2.840.10008.1.2.5",
    "1.2.840.10008.1.2.4.100",
    "1.2.3",
)


class Seed(NamedTuple):
    """A sound file.

    Args:
        name: For the report.
        data: Its bytes.
        elements: Where its elements begin, and the end of the last.
    """

    name: str
    data: bytes
    elements: tuple[int, ...]


# ------------------------------------------------------------------------------------------------ sound files
def sound_files(extra: Sequence[Path]) -> list[Seed]:
    """Files to damage: made ones, pydicom's, and some more."""
    import pydicom.data

    installed = Path(pydicom.data.__file__).parent / "test_files"
    paths = [path for folder in (installed, *extra) for path in sorted(folder.rglob("*")) if path.is_file()]
    files = [(path.name, as_ct(path.read_bytes())) for path in paths if 0 < path.stat().st_size <= MAX_SEED_BYTES]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's, of RSNA's identifiers
        made = list(made_files())
    return [Seed(name, data, element_places(data)) for name, data in [*made, *files]]


def as_ct(data: bytes) -> bytes:
    """A file whose modality says CT, so that its pixels are looked at too."""
    at = data.find(b"\x08\x00\x60\x00CS\x02\x00")
    return data if at < 0 else data[: at + 8] + b"CT" + data[at + 10 :]


def made_files() -> Iterator[tuple[str, bytes]]:
    """Slices of a made head in the plain syntaxes, and compressed where an encoder is installed."""
    from pydicom import dcmread, dcmwrite
    from pydicom.uid import (
        DeflatedExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        ExplicitVRLittleEndian,
        ImplicitVRLittleEndian,
        JPEG2000Lossless,
        JPEGLSLossless,
        RLELossless,
    )

    from ich_lstm.phantom import PhantomSettings, write_phantom

    with tempfile.TemporaryDirectory() as folder:
        write_phantom(PhantomSettings(patients=1, slices=GROUP, size=64, seed=1), Path(folder), workers=1)
        slices = sorted(Path(folder).rglob("*.dcm"))
        for i, path in enumerate(slices[:6]):
            for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian):
                data_set = dcmread(path)
                if syntax == ExplicitVRBigEndian:
                    data_set.PixelData = data_set.pixel_array.byteswap().tobytes()
                data_set.file_meta.TransferSyntaxUID = syntax
                out = io.BytesIO()
                dcmwrite(out, data_set, implicit_vr=syntax.is_implicit_VR, little_endian=syntax.is_little_endian)
                yield f"made-{syntax.name}-{i}", out.getvalue()
        for syntax in (RLELossless, JPEGLSLossless, JPEG2000Lossless):
            data_set = dcmread(slices[3])
            try:
                data_set.compress(syntax)
            except (RuntimeError, ValueError, NotImplementedError):
                continue  # no encoder
            out = io.BytesIO()
            data_set.save_as(out)
            yield f"made-{syntax.name}", out.getvalue()


def element_places(data: bytes) -> tuple[int, ...]:
    """Where the elements of a file begin; few if it is implicit or damaged."""
    places = []
    at = 132 if data[128:132] == b"DICM" else 0
    while at + 8 <= len(data) and data[at + 4 : at + 6].isalpha():
        places.append(at)
        if data[at + 4 : at + 6] in (b"OB", b"OW", b"SQ", b"UN", b"UT", b"OF", b"UC", b"UR"):
            (length,) = struct.unpack("<I", data[at + 8 : at + 12]) if at + 12 <= len(data) else (1 << 32,)
            at += 12 + length
        else:
            (length,) = struct.unpack("<H", data[at + 6 : at + 8])
            at += 8 + length
    return (*places, min(at, len(data)))


# ------------------------------------------------------------------------------------------------ damage
Damage = Callable[[bytearray, Seed, np.random.Generator], None]


def flip_bits(data: bytearray, seed: Seed, rng: np.random.Generator) -> None:
    """In the header or anywhere."""
    end = len(data) if rng.random() < 0.4 else min(len(data), 1500)
    for _ in range(int(rng.integers(1, 12))):
        data[int(rng.integers(end))] ^= 1 << int(rng.integers(8))


def cut_short(data: bytearray, seed: Seed, rng: np.random.Generator) -> None:
    """Anywhere, or near the end."""
    if rng.random() < 0.5:
        del data[int(rng.integers(len(data))) :]
    else:
        del data[-int(rng.integers(1, 200)) :]


def remove_elements(data: bytearray, seed: Seed, rng: np.random.Generator) -> None:
    """Whole elements, or some bytes in the middle of one."""
    if len(seed.elements) > 2 and rng.random() < 0.8:
        for i in sorted(rng.choice(len(seed.elements) - 1, size=min(3, len(seed.elements) - 1), replace=False), reverse=True):
            del data[seed.elements[i] : seed.elements[i + 1]]
    else:
        at = int(rng.integers(len(data)))
        del data[at : at + int(rng.integers(1, 60))]


def lie_about_length(data: bytearray, seed: Seed, rng: np.random.Generator) -> None:
    """A length that is too long, too short, undefined or huge."""
    at = int(rng.choice(seed.elements)) + int(rng.choice([4, 6, 8])) if seed.elements else int(rng.integers(len(data)))
    lie = int(rng.choice([0, 1, 2, 255, 0xFFFF, 0xFFFFFFFF, 0x7FFFFFFF, 0xFFFFFFFE, int(rng.integers(1 << 32))]))
    data[at : at + int(rng.choice([2, 4]))] = struct.pack("<I", lie)[: len(data[at : at + 4])]


def swap_syntax(data: bytearray, seed: Seed, rng: np.random.Generator) -> None:
    """Another transfer syntax in the File Meta Information."""
    at = data.find(b"\x02\x00\x10\x00UI")
    if at < 0:
        flip_bits(data, seed, rng)
        return
    uid = str(rng.choice(SYNTAXES)).encode()
    uid += b"\0" * (len(uid) % 2)
    (length,) = struct.unpack("<H", data[at + 6 : at + 8])
    data[at + 6 : at + 8 + length] = struct.pack("<H", len(uid)) + uid


def put_noise(data: bytearray, seed: Seed, rng: np.random.Generator) -> None:
    """Noise, zeros or a repetition over or between the bytes."""
    at, size = int(rng.integers(len(data))), int(rng.integers(1, 300))
    noise = (rng.bytes(size), bytes(size), bytes(data[:size]), b"\xff" * size)[int(rng.integers(4))]
    data[at : at + (size if rng.random() < 0.5 else 0)] = noise


DAMAGES: tuple[Damage, ...] = (flip_bits, cut_short, remove_elements, lie_about_length, swap_syntax, put_noise)


def damaged(seeds: Sequence[Seed], seed: int, case: int) -> tuple[str, bytes]:
    """Case N: what was done, and the bytes."""
    rng = np.random.default_rng((seed, case))
    made = [entry for entry in seeds if entry.name.startswith("made")]
    choice = made if rng.random() < 0.4 else seeds
    chosen = choice[int(rng.integers(len(choice)))]
    data = bytearray(chosen.data)
    done = []
    for _ in range(1 + int(rng.random() < 0.3)):
        damage = DAMAGES[int(rng.integers(len(DAMAGES)))]
        if data:
            damage(data, chosen, rng)
            done.append(damage.__name__)
    return f"{chosen.name}: {', '.join(done)}", bytes(data)


# ------------------------------------------------------------------------------------------------ the child
def read_case(folder: Path, seeds: Sequence[Seed], seed: int, case: int) -> str:
    """Read one case; what came of it: ``pixels``, ``scan``, the code of a refusal, or ``escape`` and what escaped."""
    from ich_lstm.errors import IchLstmError
    from ich_lstm.reading import FileRef, choose_series, index_source, load_scan, read_header, read_hu

    for old in folder.iterdir():
        old.unlink()
    whole = [entry for entry in seeds if entry.name.startswith("made-Explicit VR Little")]
    try:
        if case % GROUP:
            path = folder / "case.dcm"
            path.write_bytes(damaged(seeds, seed, case)[1])
            try:
                index_source(path, must_have_ct=False)
                read_hu(read_header(FileRef(path)))
            finally:
                path.unlink()
            return "pixels"
        for i, entry in enumerate(whole):
            (folder / f"{i}.dcm").write_bytes(entry.data if i % 3 else damaged(whole, seed, case + i)[1])
        index = index_source(folder, must_have_ct=False)
        outcome = "no study"
        for study in index.studies():
            try:
                load_scan(choose_series(study, ledger=index.ledger).series, training=True, ledger=index.ledger)
                outcome = "scan"
            except IchLstmError as error:
                outcome = error.code
        if sum(index.ledger.counts().values()) != len(whole):
            return "escape: the ledger's sum is wrong"
        return outcome
    except IchLstmError as error:
        return error.code
    except Exception as error:  # what must not happen
        return f"escape: {type(error).__name__}: {error}"


def peak_of_this_process() -> int:
    """Bytes; not what getrusage says, which counts the parent at the moment of the fork."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def child(seed: int, seeds_file: Path) -> None:
    """Read the cases whose numbers come in, one per line; answer each with a line."""
    warnings.simplefilter("ignore")
    seeds = [Seed(name, bytes.fromhex(data), tuple(places)) for name, data, places in json.loads(seeds_file.read_text())]
    answers, sys.stdout = sys.stdout, sys.stderr
    with tempfile.TemporaryDirectory() as folder:
        for line in sys.stdin:
            begin = time.perf_counter()
            outcome = read_case(Path(folder), seeds, seed, int(line))
            peak = max(peak_of_this_process(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
            answers.write(json.dumps([outcome, time.perf_counter() - begin, peak]) + "\n")
            answers.flush()


# ------------------------------------------------------------------------------------------------ the parent
class Report(NamedTuple):
    """What came of all cases.

    Args:
        outcomes: How many there were of each.
        findings: What must not be, a line each.
        slowest_seconds: Of one case.
        peak_bytes: Memory of the largest process.
    """

    outcomes: Counter[str]
    findings: list[str]
    slowest_seconds: float
    peak_bytes: int


class _Child:
    """A child that is replaced when it dies."""

    def __init__(self, seed: int, seeds_file: Path) -> None:
        self._command = [sys.executable, __file__, "--child", str(seeds_file), "--seed", str(seed)]
        self._start()

    def _start(self) -> None:
        self.process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, bufsize=1
        )

    def ask(self, case: int) -> tuple[str, float, int]:
        """Outcome, seconds and peak memory of a case."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        begin = time.perf_counter()
        self.process.stdin.write(f"{case}\n")
        ready = select.select([self.process.stdout], [], [], KILL_SECONDS)[0]
        line = self.process.stdout.readline() if ready else ""
        if line:
            outcome, seconds, peak = json.loads(line)
            return outcome, seconds, peak
        outcome = "death of the process" if ready else "hang"
        self.close()
        self._start()
        return outcome, time.perf_counter() - begin, 0

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.communicate()


def fuzz(count: int, seed: int, extra: Sequence[Path] = (), keep: Path | None = None) -> Report:
    """Read some cases.

    Args:
        count: How many.
        seed: Of the random damage.
        extra: Folders of further files to damage.
        keep: Where to keep the files of the findings.
    """
    seeds = sound_files(extra)
    outcomes: Counter[str] = Counter()
    findings: list[str] = []
    slowest, peak = 0.0, 0
    with tempfile.TemporaryDirectory() as folder:
        seeds_file = Path(folder) / "seeds.json"
        seeds_file.write_text(json.dumps([(name, data.hex(), places) for name, data, places in seeds]))
        reader = _Child(seed, seeds_file)
        try:
            for case in range(count):
                outcome, seconds, memory = reader.ask(case)
                outcomes[outcome.split(":")[0]] += 1
                slowest = max(slowest, seconds)
                bad = [outcome] if outcome.startswith("escape") or outcome in ("hang", "death of the process") else []
                bad += [f"{seconds:.1f} s"] if seconds > HANG_SECONDS else []
                bad += [f"{memory / 1e6:,.0f} MB"] if memory > max(peak, MAX_MEMORY_BYTES) else []
                peak = max(peak, memory)
                if bad:
                    name, data = damaged(seeds, seed, case)
                    findings.append(f"case {case} ({name}): {', '.join(bad)}")
                    if keep is not None:
                        keep.mkdir(parents=True, exist_ok=True)
                        (keep / f"{seed}-{case}.dcm").write_bytes(data)
        finally:
            reader.close()
    return Report(outcomes, findings, slowest, peak)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--files", type=Path, nargs="*", default=[], help="folders of further files to damage")
    parser.add_argument("--keep", type=Path, help="where to keep the files of the findings")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.child is not None:
        child(given.seed, given.child)
        return 0
    begin = time.perf_counter()
    report = fuzz(given.count, given.seed, given.files, given.keep)
    print(f"{given.count:,} cases of seed {given.seed} in {time.perf_counter() - begin:.0f} s on {os.cpu_count()} processors")
    for outcome, count in report.outcomes.most_common():
        print(f"  {count:7,} {outcome}")
    print(f"slowest case {report.slowest_seconds:.2f} s, largest process {report.peak_bytes / 1e6:,.0f} MB")
    print(f"{len(report.findings)} findings")
    for finding in report.findings:
        print(f"  {finding}")
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main())
