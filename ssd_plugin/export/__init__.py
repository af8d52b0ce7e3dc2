"""The detector as one ONNX file; ``docs/export.md`` describes it."""
