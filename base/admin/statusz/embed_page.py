"""Makes one HTML page of its parts, its policy, and a C++ header that holds both.

    embed_page.py [--html OUT] [--policy OUT] [--header OUT] PART...

The parts are one .html file with the lines `/* style */` and `/* script */` in it, and the .css
and .js files that take their places, in the order given. The policy allows this style and this
script by their digests, and polling of the same port.
"""

import argparse
import base64
import hashlib
from pathlib import Path

# Of a C++ string literal; compilers need not take more.
_LITERAL_BYTES = 16000

_HEADER = """// Made by embed_page.py.
#ifndef MUSTER_BASE_ADMIN_STATUSZ_STATUSZ_PAGE_H_
#define MUSTER_BASE_ADMIN_STATUSZ_STATUSZ_PAGE_H_

#include "absl/strings/string_view.h"

namespace muster {{

inline constexpr absl::string_view kStatuszPolicy = {policy};

inline constexpr absl::string_view kStatuszPage =
{page};

}}  // namespace muster

#endif  // MUSTER_BASE_ADMIN_STATUSZ_STATUSZ_PAGE_H_
"""


def digest(text: str) -> str:
    """As a policy names it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def policy(style: str, script: str) -> str:
    return "; ".join((
        "default-src 'none'", f"style-src '{digest(style)}'", f"script-src '{digest(script)}'",
        "connect-src 'self'", "img-src data:", "base-uri 'none'", "form-action 'none'",
        "frame-ancestors 'none'"))


def read_parts(paths: list[Path], suffix: str) -> str:
    return "".join(path.read_text() for path in paths if path.suffix == suffix)


def assemble(paths: list[Path]) -> tuple[str, str]:
    """The page and its policy."""
    style = "\n" + read_parts(paths, ".css")
    script = '\n"use strict";\n' + read_parts(paths, ".js")
    page = read_parts(paths, ".html")
    for mark, text in (("\n/* style */\n", style), ("\n/* script */\n", script)):
        if page.count(mark) != 1:
            raise SystemExit(f"the page has {page.count(mark)} lines {mark.strip()}; it needs one")
        page = page.replace(mark, text)
    return page, policy(style, script)


def literals(text: str) -> str:
    """The same as C++ string literals, which the compiler joins."""
    if ')page"' in text:
        raise SystemExit('the page must not contain )page"')
    pieces = [text[at:at + _LITERAL_BYTES] for at in range(0, len(text), _LITERAL_BYTES)]
    return "\n".join(f'    R"page({piece})page"' for piece in pieces)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--html", type=Path)
    parser.add_argument("--policy", type=Path)
    parser.add_argument("--header", type=Path)
    parser.add_argument("parts", type=Path, nargs="+")
    arguments = parser.parse_args()
    page, page_policy = assemble(arguments.parts)
    if arguments.html:
        arguments.html.write_text(page)
    if arguments.policy:
        arguments.policy.write_text(page_policy)
    if arguments.header:
        quoted = '"' + page_policy.replace('"', '\\"') + '"'
        arguments.header.write_text(_HEADER.format(policy=quoted, page=literals(page)))


if __name__ == "__main__":
    main()
