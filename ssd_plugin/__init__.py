"""SSD for MMDetection 3.x. Importing this package registers its components."""

from ssd_plugin import compat

compat.apply()

# After compat.apply(): before it, MMDetection may not be importable.
from ssd_plugin import datasets, engine, evaluation, models
from ssd_plugin.version import __version__

__all__ = ['__version__', 'datasets', 'engine', 'evaluation', 'models']
