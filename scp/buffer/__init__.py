"""The spool: acknowledged instances on disk, per series, until the series is quiet."""
