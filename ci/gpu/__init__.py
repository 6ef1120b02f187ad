"""What a machine with a GPU is asked, in stages: each has a limit, and what it finds is written as it is found.

`plan` says what there is to find, `driver` runs it in processes of its own (`task`), `lines` is the file of results,
and `page` makes docs/gpu-report.md of it. The stages are `probe`, `kit`, `exact`, `timing`, `suite` (the tests),
`variants` and `profiling`. `bash ci/gpu.sh` is the command.
"""
