"""A flow in other forms: flow charts (Mermaid, SVG, PNG), docker-compose, the JSON schema of its YAML. Models to text; starts nothing."""
