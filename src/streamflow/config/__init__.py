"""Flow, deployment and executor files: YAML with line numbers, variables, checked arguments, and the frozen `FlowSpec` they become."""
