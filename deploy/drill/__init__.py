"""`nightread drill`: a seeded nemesis over the real parts, and an independent auditor after it."""
