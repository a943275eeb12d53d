"""Studies: several training runs that answer one question, in one folder."""
