"""PostgreSQL for respool: psycopg 3, natively on Trio."""
