"""What the operator and the Job's containers say to each other.

A leaf: standard library only, imported by every layer, importing none. The operator writes a
job description (`contract.job`), the containers answer with an exit code and a result
(`contract.results`), and both name outcomes with the same closed list (`contract.reasons`).
"""
