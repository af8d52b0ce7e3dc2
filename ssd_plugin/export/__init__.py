"""The detector as one ONNX file, for ``tools/export_onnx.py``; ``docs/export.md`` tells how.

Importing the package ``ssd_plugin`` imports nothing of this.
"""
