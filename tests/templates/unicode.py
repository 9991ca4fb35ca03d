"""Writes runtime/text/src/jinja/unicode_tables.rs: what Python's string methods say about characters.

    python3 tests/templates/unicode.py > runtime/text/src/jinja/unicode_tables.rs
"""

import sys
import unicodedata

characters = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]


def table(name, doc, holds):
    """Pairs: characters since the end of the run before, and characters in the run."""
    pairs, end, start = [], 0, None
    for c in range(0x110001):
        inside = c < 0x110000 and not 0xD800 <= c < 0xE000 and holds(chr(c))
        if inside and start is None:
            start = c
        elif not inside and start is not None:
            pairs += [start - end, c - start]
            end, start = c, None
    print(f"\n/// {doc}\npub const {name}: &[u32] = &[")
    line = "   "
    for number in pairs:
        if len(line) + len(f" {number},") > 110:
            print(line)
            line = "   "
        line += f" {number},"
    print(line + "\n];")


print("//! What Python's string methods say about characters, as runs: characters between two runs, then characters in the")
print(f"//! second. Written by `tests/templates/unicode.py` from Unicode {unicodedata.unidata_version}.")
print("\n#![rustfmt::skip]" if False else "", end="")
table("UNPRINTABLE", "Not `str.isprintable`: written as escapes by `repr`.", lambda c: not c.isprintable())
table("ALPHABETIC", "`str.isalpha`.", str.isalpha)
table("DECIMAL", "`str.isdecimal`: runs begin with a digit of value 0, mostly.", str.isdecimal)
table("DIGIT", "`str.isdigit`, without the decimal ones.", lambda c: c.isdigit() and not c.isdecimal())
table("NUMERIC", "`str.isnumeric`, without digits.", lambda c: c.isnumeric() and not c.isdigit())


def simple_title(c):
    """What the first character of the uppercase form, and the rest in lower case, would give."""
    upper = c.upper()
    return upper[0] + upper[1:].lower()


rows = [(c, c.title()) for c in characters if c.title() != simple_title(c)]
print("\n/// Characters whose titlecase is not their uppercase with all but the first in lower case.")
print("pub const TITLECASE: &[(char, &str)] = &[")
escape = lambda s: "".join(f"\\u{{{ord(c):x}}}" for c in s)
line = "   "
for c, title in rows:
    item = f" ('{escape(c)}', \"{escape(title)}\"),"
    if len(line) + len(item) > 110:
        print(line)
        line = "   "
    line += item
print(line + "\n];")
starts = sum(1 for c in characters if c.isdecimal() and unicodedata.decimal(c) == 0)
print(len(rows), "titlecase", starts, "zeros", file=sys.stderr)
