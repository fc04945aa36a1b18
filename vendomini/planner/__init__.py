"""What a model takes and how fast it is, computed: pure functions of facts."""
