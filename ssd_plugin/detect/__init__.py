"""Detection on files: what ``tools/detect.py`` does, from paths to what it writes."""
