"""A transactional producer of Kafka's second transaction protocol (KIP-890, decision 0029)."""
