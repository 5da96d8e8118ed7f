"""Results for people: tables from result files."""
