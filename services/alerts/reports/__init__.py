"""Report drafts: made from what Osler knows, edited and signed by a person."""
