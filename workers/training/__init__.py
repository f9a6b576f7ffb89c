"""Fine-tuning and its evidence: data and splits, augmentation, the loop, metrics, the gate, the report."""
