"""From a folder of somebody's own images to a config that trains and tests on them.

`recognise` finds out what a folder is, `voc` and `coco` read the two kinds that there are, `parts`
divides it into what is trained on and what is evaluated on, `faults` says what is wrong with it,
`summary` tells all that, `config` fits a config, and `command` is what the tools call.

It lies beside the commands, not in the package, whose import takes PyTorch and MMDetection with
it: what is wrong with a folder is to be told before that, not after. Light: imports neither.
"""
