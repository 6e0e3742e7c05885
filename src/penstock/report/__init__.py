"""Reports for people: figures as text, tables, charts and pages. Knows nothing of what they say."""
