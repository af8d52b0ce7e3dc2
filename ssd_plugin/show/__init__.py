"""Pictures of what a detector does, for ``tools/show.py``. ``docs/pictures.md`` shows them.

Importing the package ``ssd_plugin`` imports nothing of this.
"""
