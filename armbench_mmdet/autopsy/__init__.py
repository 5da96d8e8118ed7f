"""Why a good model can score nothing: known faults injected into perfect predictions, and what stops each here."""

from __future__ import annotations

from armbench_mmdet.autopsy.examination import Finding, examine, findings_table
from armbench_mmdet.autopsy.faults import FAULTS, Fault
from armbench_mmdet.autopsy.perfect import PerfectPredictions

__all__ = ['FAULTS', 'Fault', 'Finding', 'PerfectPredictions', 'examine', 'findings_table']
