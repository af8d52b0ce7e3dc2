"""Configs of this package by name: `ssd_plugin::ssd300_voc.py`."""

from __future__ import annotations

from pathlib import Path

_PREFIX = 'ssd_plugin::'


def resolve_config_names() -> None:
    """Make 'ssd_plugin::ssd300_voc.py' a config's name, in `_base_` and `mmengine.hub.get_config`.

    Broken: MMEngine knows only OpenMMLab's own packages, demands a folder in the name, does not
    find packages installed in editable mode, and builds what it finds in a registry scope named
    after the package, where ours is `mmdet`.
    Versions: MMEngine, all of 0.10.
    We: resolve names that begin with 'ssd_plugin::', and leave the others to MMEngine.
    `ssd_plugin` must have been imported before such a config is read.
    Until: MMEngine lets a package announce its configs.
    """
    # Imported here: MMEngine can only be imported once OpenCV is known to load.
    from mmengine.config import Config
    from mmengine.hub import hub  # where get_config looks names up, however it was imported

    get_cfg_path = Config._get_cfg_path
    get_package_and_cfg_path = hub._get_package_and_cfg_path
    get_cfg_metainfo = hub._get_cfg_metainfo

    def cfg_path(name: str, filename: str) -> tuple[str, str | None]:
        if name.startswith(_PREFIX):
            return _config_file(name), 'mmdet'
        return get_cfg_path(name, filename)

    def package_and_cfg_path(name: str) -> tuple[str, str]:
        if name.startswith(_PREFIX):
            return 'mmengine', _config_file(name)  # whose folder the hub joins, see below
        return get_package_and_cfg_path(name)

    def cfg_metainfo(package_path: str, cfg_path: str) -> dict:
        # Ours is an absolute path already: joining it to the package's folder has no effect.
        if Path(cfg_path).is_absolute():
            return {'Config': cfg_path}
        return get_cfg_metainfo(package_path, cfg_path)

    Config._get_cfg_path = staticmethod(cfg_path)
    hub._get_package_and_cfg_path = package_and_cfg_path
    hub._get_cfg_metainfo = cfg_metainfo


def _config_file(name: str) -> str:
    """The path of the config that `name`, 'ssd_plugin::FILE', stands for.

    Raises:
        FileNotFoundError: There is no such config; the message lists those there are.
    """
    file_name = name.removeprefix(_PREFIX)
    package = Path(__file__).resolve().parents[1]
    # An installed package carries its configs in .mim; a source tree has them beside the package.
    root = package / '.mim' if (package / '.mim').exists() else package.parent
    file = root / 'configs' / file_name
    if not file.is_file():
        known = ', '.join(sorted(path.name for path in (root / 'configs').glob('*.py')))
        raise FileNotFoundError(f'ssd_plugin has no config {file_name!r}; it has: {known}')
    return str(file)
