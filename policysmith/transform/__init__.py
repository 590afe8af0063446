"""What is made from a policy or its plan: tables, diagrams, summaries."""
