"""A hint for whoever imports mmdet before armbench_mmdet, where mmcv has no compiled operators.

A ``.pth`` file imports this module when Python starts, so it may import nothing and cost nothing.
"""

import sys

HINT = (
    "mmcv was installed without its compiled operators (no module named 'mmcv._ext'). "
    'Put `import armbench_mmdet` before the first import of mmdet or mmcv.ops: it provides the operators of '
    'Mask R-CNN and Mask2Former without a compiler. (To compile them: pip install --no-build-isolation --no-deps '
    '--no-cache-dir --force-reinstall --no-binary onedl-mmcv onedl-mmcv)'
)


class ExtensionHint:
    """The last finder: reached only by imports that every other one has failed to find."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        """Raise the hint for an import of ``mmcv._ext``; stay silent when importlib is merely asked if it exists."""
        if name == 'mmcv._ext' and sys._getframe(2).f_code.co_name == '_find_and_load_unlocked':
            raise ModuleNotFoundError(HINT, name=name)


sys.meta_path.append(ExtensionHint)
