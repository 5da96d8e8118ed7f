"""Pictures of instances: one drawer, contact sheets."""
