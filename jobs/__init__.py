"""One file per verb: parse, load settings, call one pipeline, print the report."""
