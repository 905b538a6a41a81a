"""WHAT RUNS SHOW: figures, tables and a page of them. Needs the extra ``report``."""
