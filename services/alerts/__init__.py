"""Alerts: cards inside the clinician's own tools (CDS Hooks 2.0)."""
