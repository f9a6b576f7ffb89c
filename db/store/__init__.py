"""Every question to the database, one named function each: intake, scoring, reading, models, people."""
