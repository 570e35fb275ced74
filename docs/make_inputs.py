"""Write `docs/inputs.md`, and the table in the README: what happens to which input, from the same list as the tests.

python docs/make_inputs.py
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "inputs.md"
README = ROOT / "README.md"
BEGIN, END = "<!-- inputs -->\n", "<!-- /inputs -->\n"

HEADER = """\
# What happens to which input

Made by `python docs/make_inputs.py` from the list of cases that the tests read (`tests/catalogue`), so every line is tested: each
case is written to disk, read, and must end as it says here. For every run, files in = used + skipped + refused.

**used**: read; what was put right is in the scan's `repairs`, what its reader should know in its `flags`. **skipped**: no image
that this library is for. **refused**: it should have been usable and is not; there is no probability. `ich-prepare` then exits
with 3; `ich-predict` does where the study has no result for it, or where the file belongs to no study. Numbers are those of the
catalogue; rows that concern label tables are not listed here.

| # | input | what is done | codes | cases |
|---|---|---|---|---|
"""


sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
from catalogue import ROWS, VARIANTS  # noqa: E402


def readme() -> str:
    """The README with its table made anew."""
    before, _, rest = README.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    tested = {variant.row for variant in VARIANTS}
    lines = [f"| {row.title} | {row.action} |\n" for number, row in ROWS.items() if number in tested]
    return before + BEGIN + "\n| input | what is done |\n|---|---|\n" + "".join(lines) + "\n" + END + after


def page() -> str:
    """The page's text."""
    lines = []
    for number, row in ROWS.items():
        variants = [variant for variant in VARIANTS if variant.row == number]
        if not variants:
            continue
        codes: dict[str, None] = {}
        for variant in variants:
            expect = variant.expect
            codes |= dict.fromkeys(f"refused `{code}`" for code in expect.refused)
            codes |= dict.fromkeys(f"skipped `{code}`" for code in expect.skipped)
            codes |= dict.fromkeys(f"repair `{code}`" for code in sorted(expect.repairs or ()))
            codes |= dict.fromkeys(f"flag `{code}`" for code in sorted(expect.flags or ()))
        lines.append(f"| {number} | {row.title} | {row.action} | {', '.join(codes)} | {len(variants)} |\n")
    return HEADER + "".join(lines) + f"\n{len(VARIANTS)} cases in all.\n"


if __name__ == "__main__":
    PAGE.write_text(page())
    README.write_text(readme())
