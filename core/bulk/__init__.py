"""Very many recordings to text: planned once, worked shard by shard, gone on with after a stop."""
