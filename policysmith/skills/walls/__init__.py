"""The second wall around skills' code: what the system itself refuses to the process that runs it."""
