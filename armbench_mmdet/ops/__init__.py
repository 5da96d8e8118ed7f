"""mmcv's operators for machines where mmcv was installed without its compiled extension.

Importing this package puts a stand-in for ``mmcv._ext`` in place when the extension is missing; see :mod:`.extension`.
"""

from armbench_mmdet.ops.backend import BACKEND_VARIABLE
from armbench_mmdet.ops.extension import STAND_IN_ACTIVE, active_backend

__all__ = ['BACKEND_VARIABLE', 'STAND_IN_ACTIVE', 'active_backend']
