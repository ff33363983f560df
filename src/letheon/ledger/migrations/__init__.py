"""How the schema of the ledger came to be, step by step; `store.py` brings a file up to the newest."""
