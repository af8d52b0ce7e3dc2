"""Before any test imports MMDetection: the plugin makes that possible without compiled mmcv."""

import ssd_plugin  # noqa: F401
