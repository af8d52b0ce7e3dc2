# A run that is killed and resumed (`--resume`) ends with the same weights as one that was not, also
# from within an epoch: docs/reliability.md. To do without, say `runner_type = 'Runner'` in your
# config, which is MMEngine's runner.
runner_type = 'ResumableRunner'
