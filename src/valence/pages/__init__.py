"""Pages that are one file: one head, one stylesheet, no network; reports, audits, explanations."""
