"""Reports: finished runs joined on layer and head, statistics with their chance levels, cases, pages."""
