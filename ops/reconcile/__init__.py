"""Compares what the witnesses of all payments say: topics, table, records, the provider's ledger. Reads only."""
