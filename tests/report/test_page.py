"""The page as text: whole, self-contained, small enough, and safe with any name."""

from __future__ import annotations

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from armbench_mmdet.report import page as pages
from armbench_mmdet.report.page import PROCEDURAL, Report, gather, html
from armbench_mmdet.report.tables import published_table

SECTIONS = (
    *('runs', 'results', 'published', 'training', 'precision-recall', 'size', 'density', 'speed', 'errors'),
    *('pictures', 'provenance'),
)


class Outline(HTMLParser):
    """Sections, links, images without alternative text, and whatever points outside."""

    def __init__(self) -> None:
        super().__init__()
        self.sections: list[str] = []
        self.links: list[str] = []
        self.outside: list[str] = []
        self.bare_images = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag == 'section':
            self.sections.append(str(found['id']))
        for name in ('src', 'href'):
            address = found.get(name)
            if address and address.startswith('#'):
                self.links.append(address[1:])
            elif address and not address.startswith('data:'):
                self.outside.append(address)
        self.bare_images += tag == 'img' and not found.get('alt')


def test_the_page_is_whole_and_needs_nothing_else(page: Path) -> None:
    text = page.read_text()
    outline = Outline()
    outline.feed(text)
    assert tuple(outline.sections) == SECTIONS
    assert set(outline.links) == set(SECTIONS)
    assert outline.outside == []
    assert outline.bare_images == 0
    assert page.stat().st_size < 15e6
    assert text.count('<script id="plotly">') == 1
    assert 'id="procedural"' in text
    assert PROCEDURAL in text
    for row in published_table().rows:
        assert row[-1].text in text
    assert "default-src 'none'" in text


def test_tables_and_pictures_need_no_script(page: Path, report: Report) -> None:
    text = re.sub(r'<script.*?</script>', '', page.read_text(), flags=re.DOTALL)
    assert text.count('<figure class="picture"') == len(report.pictures) > 50
    assert text.count('<table>') > 20
    assert '<noscript>' in text


def test_names_cannot_break_the_page(work_dirs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, 'gallery', lambda runs: ([], []))
    name = '<script>alert(1)'
    shutil.copytree(work_dirs[0], tmp_path / name)
    text = html(gather([tmp_path / name]))
    assert name not in text
    assert '&lt;script&gt;alert(1)' in text
    assert 'There are no pictures' in text


def test_a_run_on_photos_has_no_banner(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('armbench_mmdet.report.collect.Run.is_procedural', False)
    assert 'id="procedural"' not in html(report)
