"""How the tables became what ``schema.py`` says, step by step; run by alembic at the start."""
