"""All faults, one after another, as a table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from armbench_mmdet.autopsy.faults import FAULTS, Fault
from armbench_mmdet.autopsy.perfect import PerfectPredictions
from armbench_mmdet.evaluation.result import shown
from armbench_mmdet.report.tables import markdown_table


@dataclass(frozen=True)
class Finding:
    """What a fault did.

    Attributes:
        fault: The fault.
        with_it: The score that shows it, with the fault.
        without: The same without.
        messages: What the checks here said when the fault was committed.
    """

    fault: Fault
    with_it: float
    without: float
    messages: list[str]


def examine(perfect: PerfectPredictions, faults: Iterable[Fault] = FAULTS) -> Iterator[Finding]:
    """Measure every fault, and commit it against the checks of this project.

    Raises:
        RuntimeError: A check let its fault through.
    """
    for fault in faults:
        with_it, without = fault.measure(perfect)
        yield Finding(fault, with_it[fault.score], without[fault.score], fault.stop(perfect))


def findings_table(findings: Iterable[Finding]) -> str:
    """Fault, segm mAP with it and without, and the check that stops it, as Markdown."""
    findings = list(findings)
    rows = []
    for finding in findings:
        unit = '' if finding.fault.score == 'mAP' else f' ({finding.fault.score})'
        rows.append([finding.fault.name, *(shown(score) + unit for score in (finding.with_it, finding.without))])
    table = markdown_table(['fault', 'segm mAP with it', 'without it'], rows).splitlines()
    checks = ['what stops it here', '---', *(finding.fault.check for finding in findings)]
    return '\n'.join(f'{line} {check} |' for line, check in zip(table, checks, strict=True))
