"""mmengine's runner with a console made for people, safe loading and atomic checkpoints."""

import re
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import mmengine
from mmdet.registry import RUNNERS
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.model import is_model_wrapper
from mmengine.runner import BaseLoop, Runner
from mmengine.runner.checkpoint import weights_to_cpu
from mmengine.utils import apply_to
from torch import nn

from armbench_mmdet.engine.checkpoints import safe_loaders, write_checkpoint
from armbench_mmdet.engine.console import quiet_console, quiet_warnings
from armbench_mmdet.engine.levers import use_levers
from armbench_mmdet.engine.loops import resumable
from armbench_mmdet.errors import InputError

_BEFORE_BATCH = re.compile('before_(train|val|test)_iter')
_AFTER_BATCH = re.compile('after_(train|val|test)_iter')
_PACKAGES = {'TensorboardVisBackend': 'tensorboard', 'WandbVisBackend': 'wandb', 'MLflowVisBackend': 'mlflow'}


@RUNNERS.register_module()
class ArmbenchRunner(Runner):
    """A :class:`mmengine.runner.Runner` whose terminal shows only what its user needs.

    Everything the stack logs still goes to the log file in the work directory. Checkpoints are loaded without running
    code, unless the config has ``trust_checkpoint = True``, and written so that none is ever half there. Chosen by
    ``runner_type`` in ``configs/_base_/default_runtime.py``, which mmdet's own tools honour as well.
    """

    batch_in_work: tuple[str, Any] | None = None
    """``train``, ``val`` or ``test``, and the batch; None between batches. A failure is explained by it."""

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """Call the hooks as mmengine does, and remember the batch in work."""
        before = _BEFORE_BATCH.fullmatch(fn_name)
        if before:
            self.batch_in_work = (before[1], kwargs.get('data_batch'))
        super().call_hook(fn_name, **kwargs)
        if fn_name == 'before_train':
            super().dump_config()
        if _AFTER_BATCH.fullmatch(fn_name):
            self.batch_in_work = None

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """Build the logger as mmengine does, then quieten its terminal handler, and Python's warnings."""
        quiet_warnings()
        logger = super().build_logger(*args, **kwargs)
        quiet_console(logger)
        return logger

    def build_visualizer(self, visualizer: Any = None) -> Any:
        """Build the visualizer as mmengine does, once the packages of its backends are known to be there.

        Raises:
            InputError: One is missing.
        """
        backends = visualizer.get('vis_backends') or () if isinstance(visualizer, dict) else ()
        for name in (backend['type'] for backend in backends):
            package = _PACKAGES.get(name)
            if package and find_spec(package) is None:
                raise InputError(f'{name} needs a package that is not installed. Run: pip install {package}')
        return super().build_visualizer(visualizer)

    def register_default_hooks(self, hooks: dict[str, Any] | None = None) -> None:
        """Register the hooks as mmengine does; None switches any of them off, not only mmengine's own."""
        off = {'enabled': False}
        super().register_default_hooks({name: off if hook is None else hook for name, hook in (hooks or {}).items()})

    def register_hook(self, hook: Hook | dict, priority: Any = None) -> None:
        """Register a hook as mmengine does, unless its settings have ``enabled=False``."""
        if isinstance(hook, dict):
            hook = dict(hook)
            if not hook.pop('enabled', True):
                return
        super().register_hook(hook, priority)

    def dump_config(self) -> None:
        """Nothing yet: only a training that begins replaces the resolved config of its folder."""

    def build_train_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """Build the training loop as mmengine does, in a form that can go on from any iteration."""
        return super().build_train_loop(resumable(loop))

    def build_model(self, model: nn.Module | dict) -> nn.Module:
        """Build the model as mmengine does; a checkpoint that it loads runs no code. The config's levers are pulled."""
        with self._safe_loaders():
            built = super().build_model(model)
        use_levers(built, self.cfg.get('levers', {}))
        return built

    def train(self) -> nn.Module:
        """Train as mmengine does; a checkpoint that weights start from (``init_cfg``) runs no code."""
        with self._safe_loaders():
            return super().train()

    def load_checkpoint(self, *args: Any, **kwargs: Any) -> Any:
        """Load a checkpoint as mmengine does, without running code."""
        with self._safe_loaders():
            return super().load_checkpoint(*args, **kwargs)

    def _safe_loaders(self) -> Any:
        return safe_loaders(trusted=bool(self.cfg.get('trust_checkpoint', False)))

    @master_only
    def save_checkpoint(
        self,
        out_dir: str,
        filename: str,
        file_client_args: dict | None = None,
        save_optimizer: bool = True,
        save_param_scheduler: bool = True,
        meta: dict[str, Any] | None = None,
        by_epoch: bool = True,
        backend_args: dict | None = None,
    ) -> None:
        """Save what mmengine saves, straight into a file that is never half there; arguments are mmengine's."""
        if file_client_args or backend_args:
            kept = (file_client_args, save_optimizer, save_param_scheduler, meta, by_epoch, backend_args)
            super().save_checkpoint(out_dir, filename, *kept)
            return
        model = self.model.module if is_model_wrapper(self.model) else self.model
        data = self.train_dataloader.dataset
        facts = {
            'epoch': self.epoch + int(by_epoch),
            'iter': self.iter + int(not by_epoch),
            **(meta or {}),
            'cfg': self.cfg.pretty_text,
            'seed': self.seed,
            'experiment_name': self.experiment_name,
            'time': time.strftime('%Y%m%d_%H%M%S'),
            'mmengine_version': mmengine.__version__,
            **({'dataset_meta': data.metainfo} if hasattr(data, 'metainfo') else {}),
        }
        checkpoint = {'meta': facts, 'state_dict': weights_to_cpu(model.state_dict()), **self.progress_state()}
        if not save_param_scheduler:
            checkpoint.pop('param_schedulers', None)
        if save_optimizer:
            checkpoint['optimizer'] = _on_cpu(self.optim_wrapper.state_dict())
        self.call_hook('before_save_checkpoint', checkpoint=checkpoint)
        write_checkpoint(Path(out_dir, filename), checkpoint)

    def progress_state(self) -> dict[str, Any]:
        """What a checkpoint holds of logs and schedulers; it is small."""
        state = {'message_hub': self.message_hub.state_dict()}
        if isinstance(self.param_schedulers, dict):
            named = self.param_schedulers.items()
            state['param_schedulers'] = {name: [one.state_dict() for one in several] for name, several in named}
        elif self.param_schedulers is not None:
            state['param_schedulers'] = [one.state_dict() for one in self.param_schedulers]
        return _on_cpu(state)


def _on_cpu(state: Any) -> Any:
    return apply_to(state, lambda value: hasattr(value, 'cpu'), lambda value: value.cpu())
