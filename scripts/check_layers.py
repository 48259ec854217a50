#!/usr/bin/env python3
"""Checks that src/ keeps to its layers, and lists the longest files and functions.

A folder includes only itself and folders above it in src/CMakeLists.txt, and only those that its
own CMakeLists.txt declares, directly or through them. Code for one kind of device lies in a folder
of that device's name.
"""

import pathlib
import re
import sys

SRC = pathlib.Path(__file__).resolve().parents[1] / "src"
DEVICE_HEADERS = re.compile(r"immintrin\.h|[a-z]+intrin\.h|arm_neon\.h|cuda\w*\.h|cublas\w*\.h")
DEVICE_FOLDERS = {"cpu", "cuda"}
LISTED = 10


def layer_order():
    text = (SRC / "CMakeLists.txt").read_text()
    return re.findall(r"^add_subdirectory\((\w+)\)", text, re.M)


def declared(folder):
    """The folders that `folder` links: for its code, and for its tests besides."""
    text = (SRC / folder / "CMakeLists.txt").read_text()
    call = re.search(r"kvasir_library\((.*?)\)", text, re.S)
    words = call.group(1).split() if call else []
    groups = {"DEPS": [], "TEST_DEPS": []}
    current = None
    for word in words[1:]:
        if word in groups:
            current = word
        elif current:
            groups[current].append(word)
    return groups["DEPS"], groups["TEST_DEPS"]


def closure(folders, links):
    seen, todo = set(), list(folders)
    while todo:
        folder = todo.pop()
        if folder in links and folder not in seen:
            seen.add(folder)
            todo.extend(links[folder])
    return seen


def sources():
    return sorted(path for path in SRC.rglob("*") if path.suffix in (".h", ".cc"))


def check_declarations(order, links):
    for folder in order:
        for other in links[folder]:
            if other in order and order.index(other) >= order.index(folder):
                yield f"src/{folder}/CMakeLists.txt: {other} is not above {folder}"


def check_file(path, order, links, test_links):
    relative = path.relative_to(SRC)
    folder = relative.parts[0]
    if folder not in order:
        yield f"src/{relative}: {folder} is not in src/CMakeLists.txt"
        return
    # Helpers of tests are headers in a folder called testing; they may need what tests need.
    is_test = path.stem.endswith("_test") or "testing" in relative.parts
    allowed = closure(links[folder] + (test_links[folder] if is_test else []), links) | {folder}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        include = re.match(r'\s*#\s*include\s+(?:"([^"]+)"|<([^>]+)>)', line)
        if not include:
            continue
        quoted, angled = include.groups()
        where = f"src/{relative}:{number}"
        if quoted and "/" in quoted:
            other = quoted.split("/")[0]
            if other in order and other not in allowed:
                below = order.index(other) > order.index(folder)
                why = f"{other} lies below {folder}" if below else f"{folder} does not declare {other}"
                yield f"{where}: {quoted}: {why}"
            elif not (SRC / quoted).exists():
                yield f"{where}: {quoted}: no such file"
        name = (quoted or angled).split("/")[-1]
        if DEVICE_HEADERS.fullmatch(name) and not DEVICE_FOLDERS & set(relative.parts):
            yield f"{where}: {name} belongs under {' or '.join(sorted(DEVICE_FOLDERS))}"


def blank(match):
    """Comments and literals as spaces, so that positions and lines stay."""
    return re.sub(r"[^\n]", " ", match.group(0))


def functions(path):
    """(lines, name, first line) of each function body that is not inside another one."""
    text = re.sub(
        r'//[^\n]*|/\*.*?\*/|R"\((?:.|\n)*?\)"|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])\'|^\s*#[^\n]*',
        blank,
        path.read_text(),
        flags=re.S | re.M,
    )
    open_blocks, head_begin = [], 0
    for position, char in enumerate(text):
        if char == "{":
            head = text[head_begin:position]
            scope = re.search(r"\b(namespace|class|struct|enum|union)\b[^()]*$", head)
            inside = any(is_function for is_function, *_ in open_blocks)
            is_function = inside or ("(" in head and not scope)
            begin = head_begin + len(head) - len(head.lstrip())
            open_blocks.append((is_function, inside, begin, head))
        elif char == "}" and open_blocks:
            is_function, inside, begin, head = open_blocks.pop()
            if is_function and not inside:
                name = re.search(r"([\w:~]+)\s*\(", head)
                lines = text.count("\n", begin, position) + 1
                yield lines, name.group(1) if name else "?", text.count("\n", 0, begin) + 1
        if char in "{};":
            head_begin = position + 1


def report():
    lengths = sorted(((len(p.read_text().splitlines()), p) for p in sources()), reverse=True)
    print("longest files:")
    for count, path in lengths[:LISTED]:
        print(f"  {count:5}  {path.relative_to(SRC.parent)}")
    found = [(n, name, p, at) for p in sources() for n, name, at in functions(p)]
    print("longest functions:")
    for count, name, path, at in sorted(found, key=lambda f: -f[0])[:LISTED]:
        print(f"  {count:5}  {path.relative_to(SRC.parent)}:{at} {name}")


def main():
    order = layer_order()
    links, test_links = {}, {}
    for folder in order:
        links[folder], test_links[folder] = declared(folder)
    faults = list(check_declarations(order, links))
    for path in sources():
        faults += check_file(path, order, links, test_links)
    report()
    print("\n".join(faults) if faults else f"layers: {len(sources())} files keep to them")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
