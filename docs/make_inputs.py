"""Write `docs/inputs.md` and the table of inputs in the README, from the catalogue that the tests read.

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

`python docs/make_inputs.py` writes this page from the catalogue that the tests read (`tests/catalogue`), so every line is tested:
each case is written to disk and read, and must end as this page says. For every run, files in = used + skipped + refused.

- **used**: the file is read. Repairs are listed in the scan's `repairs`, and what a reader of the result should know in
  its `flags`.
- **skipped**: the file is not an input for this library.
- **refused**: the file should have been usable and is not; it gets no probability. The commands then may exit with
  [code 3](../README.md#commands).

The numbers are those of the catalogue; rows about label tables are not listed here.

| # | input | what is done | codes | cases |
|---|---|---|---|---|
"""


sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
from catalogue import ROWS, VARIANTS  # noqa: E402


def readme() -> str:
    """The text of the README with a new table."""
    before, _, rest = README.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    tested = {variant.row for variant in VARIANTS}
    lines = [f"| {row.title} | {row.action} |\n" for number, row in ROWS.items() if number in tested]
    return before + BEGIN + "\n| input | what is done |\n|---|---|\n" + "".join(lines) + "\n" + END + after


def page() -> str:
    """The text of the page."""
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
