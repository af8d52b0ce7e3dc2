"""A detector as an ONNX or LiteRT file: written, checked, run and evaluated (docs/export.md)."""
