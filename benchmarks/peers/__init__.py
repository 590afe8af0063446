"""What policysmith is measured against."""
