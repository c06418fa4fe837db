"""KFP components: one verb per module, each a thin shell over a tested step."""
