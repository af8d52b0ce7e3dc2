"""What ``tools/show.py`` and ``tools/detect.py`` draw."""
