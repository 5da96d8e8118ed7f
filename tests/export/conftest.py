"""Without the extra ``onnx`` of the package nothing is exported."""

import importlib.util

collect_ignore_glob = [] if importlib.util.find_spec('onnxscript') else ['test_*.py']
