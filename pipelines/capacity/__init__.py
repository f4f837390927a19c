"""How much machine a number of studies needs: what a study costs, measured, and a health system, simulated."""
