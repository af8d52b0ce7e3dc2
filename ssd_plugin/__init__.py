"""SSD for MMDetection 3.x. Importing this package registers its components."""

from . import compat

compat.apply()

# After compat.apply(): before it, MMDetection may not be importable.
from . import (
    amp,
    assigner,
    augment,
    backbones,
    collate,
    datasets,
    evaluation,
    fault_report,
    head,
    hooks,
    losses,
    memory_format,
    nonfinite,
    norm_stats,
    param_groups,
    preprocessor,
    priors,
    resume,
    runtime_info,
    transforms,
)
from .version import __version__

__all__ = ['__version__']
