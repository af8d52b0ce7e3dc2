"""From a folder of your own images to a config that trains and tests on them (``--data-root``).

`recognise` finds out what a folder is; `voc`, `coco` and `yolo` find its files, and read them with
the readers in `ssd_plugin.datasets`; `parts` chooses the images to train and to evaluate on;
`summary` collects what was read and what is wrong with it; `config` fits a config to it.
"""
