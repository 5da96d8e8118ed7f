"""The picture of the architecture: rooms of the package by floor, imports as arrows.

``python docs/architecture.py`` writes ``docs/architecture.svg``; with ``--check`` it only says whether that is current.
"""

import ast
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = 'armbench_mmdet'
PICTURE = Path(__file__).with_suffix('.svg')
EVERYWHERE = {'errors', 'files', 'jit', 'system'}
"""Used by nearly every room: drawn without arrows."""
BOX_W, BOX_H, GAP_X, GAP_Y, MARGIN = 132, 40, 22, 46, 20


def room_of(module: str) -> str | None:
    """The room of a dotted module name: a folder of the package, or a module beside them; None for others."""
    parts = module.split('.')
    return parts[1] if parts[0] == PACKAGE and len(parts) > 1 else None


def rooms_and_imports() -> dict[str, set[str]]:
    """Each room, with the rooms that it imports."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in sorted((ROOT / PACKAGE).rglob('*.py')):
        here = path.relative_to(ROOT).with_suffix('').parts
        if here[1] == '__init__':
            continue
        room = here[1]
        found[room] |= set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [f'{node.module}.{alias.name}' for alias in node.names]
                found[room] |= {other for name in names if (other := room_of(name)) and other != room}
    return {room: {other for other in others if other in found} for room, others in found.items()}


def floors(imports: dict[str, set[str]]) -> dict[str, int]:
    """The floor of each room: one above the highest room that it imports.

    Raises:
        ValueError: Rooms import each other in a circle.
    """
    known: dict[str, int] = {}

    def floor(room: str, above: tuple[str, ...] = ()) -> int:
        if room in above:
            raise ValueError(f'rooms must not import each other in a circle, got {" → ".join([*above, room])}')
        if room not in known:
            known[room] = 1 + max((floor(other, (*above, room)) for other in imports[room]), default=-1)
        return known[room]

    for room in imports:
        floor(room)
    return known


def draw(imports: dict[str, set[str]]) -> str:
    """The picture as SVG; an arrow that a longer way implies is left out."""
    level = floors(imports)
    rows: dict[int, list[str]] = defaultdict(list)
    for room in sorted(imports):
        rows[level[room]].append(room)
    top = max(rows)
    width = max(len(row) for row in rows.values()) * (BOX_W + GAP_X) - GAP_X + 2 * MARGIN
    height = (top + 1) * (BOX_H + GAP_Y) - GAP_Y + 2 * MARGIN
    place = {}
    for number, row in rows.items():
        left = (width - len(row) * (BOX_W + GAP_X) + GAP_X) / 2
        for column, room in enumerate(row):
            place[room] = (left + column * (BOX_W + GAP_X), MARGIN + (top - number) * (BOX_H + GAP_Y))

    def reached(room: str) -> set[str]:
        return set().union(*({other} | reached(other) for other in imports[room])) if imports[room] else set()

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        'font-family="sans-serif" font-size="14" text-anchor="middle">',
        '<rect width="100%" height="100%" fill="white"/>',
        '<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 z" fill="#789"/></marker>',
    ]
    for room in sorted(imports):
        for other in sorted(imports[room] - EVERYWHERE):
            if any(other in reached(between) for between in imports[room] - {other}):
                continue
            (x1, y1), (x2, y2) = place[room], place[other]
            parts.append(
                f'<path d="M{x1 + BOX_W / 2:.0f} {y1 + BOX_H:.0f} C{x1 + BOX_W / 2:.0f} {y1 + BOX_H + 30:.0f} '
                f'{x2 + BOX_W / 2:.0f} {y2 - 30:.0f} {x2 + BOX_W / 2:.0f} {y2:.0f}" '
                'fill="none" stroke="#789" marker-end="url(#tip)"/>'
            )
    for room, (x, y) in sorted(place.items()):
        is_file = (ROOT / PACKAGE / f'{room}.py').is_file()
        colour = '#f2f2f2' if is_file else '#dbe9f6'
        name = f'{room}.py' if is_file else f'{room}/'
        parts.append(
            f'<rect x="{x:.0f}" y="{y:.0f}" width="{BOX_W}" height="{BOX_H}" rx="6" fill="{colour}" stroke="#456"/>'
        )
        parts.append(f'<text x="{x + BOX_W / 2:.0f}" y="{y + BOX_H / 2 + 5:.0f}">{name}</text>')
    return '\n'.join([*parts, '</svg>', ''])


def main() -> int:
    """Draw, or check."""
    drawn = draw(rooms_and_imports())
    if '--check' in sys.argv[1:]:
        is_current = PICTURE.is_file() and PICTURE.read_text() == drawn
        print('up to date' if is_current else f'{PICTURE.name} is out of date: run python docs/architecture.py')
        return 0 if is_current else 1
    PICTURE.write_text(drawn)
    return 0


if __name__ == '__main__':
    sys.exit(main())
