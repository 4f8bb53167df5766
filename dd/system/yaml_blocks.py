"""Entries put into and taken out of a YAML file as text: not a byte of what the user has written changes."""

from __future__ import annotations

import yaml

from dd.errors import DDError


def insert(text: str, section: str, block: str, file: str) -> str:
    """`text` with a block (a key and what belongs to it) at the end of a top-level section, indented as its entries.

    An empty section (`name: {}` or nothing behind the colon) becomes a block. Raises DDError for any other form.
    """
    node = _section(text, section)
    if isinstance(node, yaml.MappingNode) and node.value and not node.flow_style:
        lines = text.splitlines(keepends=True)
        end = _end(node, lines)
        indent = " " * node.value[0][0].start_mark.column
        last_newline = "" if lines[end - 1].endswith("\n") else "\n"
        return "".join(lines[:end]) + last_newline + "\n" + _indented(block, indent) + "".join(lines[end:])
    if _is_empty(node):
        assert node is not None
        before, after = text[: node.start_mark.index].rstrip(" "), text[node.end_mark.index :]
        return before + "\n" + _indented(block, "  ").rstrip("\n") + (after if after.startswith("\n") else "\n" + after)
    raise DDError(f"{file}: expected a block of {section} under `{section}:`, found another form: write one")


def remove(text: str, section: str, name: str) -> str:
    """`text` without one entry of a top-level section; a section without entries becomes `{}`.

    Comments above the entry stay. Without such an entry the text stays as it was.
    """
    node = _section(text, section)
    if not isinstance(node, yaml.MappingNode) or node.flow_style:
        return text
    keys = [key for key, _ in node.value]
    place = next((i for i, key in enumerate(keys) if key.value == name), None)
    if place is None:
        return text
    lines = text.splitlines(keepends=True)
    start = keys[place].start_mark.line
    end = _end(node.value[place][1], lines)
    while place and not lines[start - 1].strip():
        start -= 1  # the blank line between two entries goes with the second
    while not place and len(keys) > 1 and not lines[end].strip():
        end += 1
    if len(keys) > 1:
        return "".join(lines[:start] + lines[end:])
    opening = next(i for i in range(start - 1, -1, -1) if lines[i].startswith(f"{section}:"))
    lines[opening] = f"{section}: {{}}{lines[opening][len(section) + 1 :]}"
    return "".join(lines[: max(start, opening + 1)] + lines[end:])


def _section(text: str, section: str) -> yaml.Node | None:
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    pairs = root.value if isinstance(root, yaml.MappingNode) else []
    return next((value for key, value in pairs if key.value == section), None)


def _is_empty(node: yaml.Node | None) -> bool:
    if isinstance(node, yaml.MappingNode):
        return not node.value
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null" and not node.value


def _end(node: yaml.Node, lines: list[str]) -> int:
    """Number of the line behind a node; blank lines and top-level comments belong to what follows."""
    end = node.end_mark.line if node.end_mark.column == 0 else node.end_mark.line + 1
    if node.end_mark.column and not lines[node.end_mark.line][: node.end_mark.column].strip():
        end -= 1  # a block ends where the next entry begins
    while end and (not lines[end - 1].strip() or lines[end - 1].startswith("#")):
        end -= 1
    return end


def _indented(block: str, indent: str) -> str:
    return "".join(f"{indent}{line}" if line.strip() else line for line in block.splitlines(keepends=True))
