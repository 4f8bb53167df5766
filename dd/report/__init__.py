"""Reports: tables, plots and a self-contained HTML page, all from the same rows."""
