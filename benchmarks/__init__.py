"""fastbp's benchmarks: every speed claim as one row, measured beside its peers in the same run.

``python -m benchmarks`` runs them all; ``python -m benchmarks.ops`` times every op of the table.
PyTorch is optional: without it its columns stay blank and the bars which compare with it are not judged.

Files: `environment` prepares the process and describes the machine, `timing` interleaves the sides,
`results` holds rows, bars and verdicts, `report` prints them; the others are the sections.
"""
